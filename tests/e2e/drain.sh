#!/bin/bash
# limit: 600
# drain.sh [ROUNDS]: disks are drained, one after the other, while clients write, and taken out; the daemon is killed in the middle. No
# client has an error, every completed write is there, and the disks are clean. Volumes with one copy, with two, with
# snapshots, and one that nobody has attached. And a disk is taken out by force: its copies are made anew. Default: 4 rounds.
. "$(dirname "$0")/lib.sh"
require nbdsh jq
rounds=${1:-4}
seed_choose
require_daemon
CACHE_MB=256 daemon_configure
daemon_start
for i in 1 2 3; do
	disk_make "d$i" 512M
done
volume_make one 64M
volume_make two 3G --replicas 2
volume_make idle 64M
nbd "$(uri idle)" 'h.pwrite(b"what nobody looks at".ljust(512, b".") * 8192, 0); h.flush()'
q volume detach idle >/dev/null

say "what cannot be drained is refused"
q pool create alone >/dev/null
disk_make a1 64M --pool alone
q volume create lonely --size 64M --pool alone >/dev/null
q volume attach lonely --nbd >/dev/null
nbd "$(uri lonely)" 'h.pwrite(b"x" * 65536, 0); h.flush()'
expect 1 'add a disk' q disk drain "$dir/disks/a1.img"
expect 1 'quarry disk drain|in-use|holds data' q disk remove "$dir/disks/a1.img"
expect 0 '' q volume detach lonely

say "a drain can be taken back"
expect 0 'to go|done' q disk drain "$dir/disks/d1.img"
expect 1 'drain' q status
expect 0 'drained no more' q disk drain "$dir/disks/d1.img" --cancel
is "its drain" "$(json .drain disk show "$dir/disks/d1.img")" null

is_drained() { [ "$(json .drain.done disk show "$1")" = true ]; }

load_begin tests/e2e/loadgen --seed "$seed" --window-mib 12 "$(uri one)" "$(uri two)"
round=0 last=3
while [ $round -lt "$rounds" ]; do
	round=$((round + 1))
	disk=$dir/disks/d$round.img
	last=$((last + 1))
	say "round $round: ${disk##*/} is drained under load"
	disk_make "d$last" 512M
	[ $((round % 2)) = 0 ] || q snapshot create "two@round$round" >/dev/null
	load_tell load
	load_hear loading
	expect 0 '' q disk drain "$disk"
	delay 1500
	daemon_kill
	load_hear lost
	daemon_start
	load_tell verify
	load_hear verified
	load_tell load 20000
	load_hear loading
	load_hear "done"
	until_true 120 is_drained "$disk"
	load_tell verify
	load_hear verified
	expect 0 '' q disk remove "$disk"
	expect 0 '' q disk check "$disk"
	is "stale copies of two" "$(json '[.copies[] | select(.state != "current")] | length' volume show two)" 0
done
holds sh -c "! '$BUILD/quarry' --json events | grep -q copy-stale"
q volume attach idle --nbd >/dev/null
nbd "$(uri idle)" 'assert h.pread(512 * 8192, 0) == b"what nobody looks at".ljust(512, b".") * 8192'
expect 0 '' q status

say "what is removed by force is made anew"
load_end
for v in one idle lonely two; do
	q volume detach $v >/dev/null
	q volume delete $v --snapshots >/dev/null
done
volume_make kept 64M --replicas 2
nbd "$(uri kept)" 'h.pwrite(b"what two disks have".ljust(512, b".") * 8192, 0); h.flush()'
disk=$(json '.copies[0].name' volume show kept)
image=$(json .path disk show "$disk")
expect 0 '' q disk remove "$disk" --force
mv "$image" "$dir/away.img"
is_well() { q status >/dev/null && q --json events | grep -q rebuild-begun; }
until_true 60 is_well
is "copies on $disk" "$(json "[.copies[] | select(.name == \"$disk\")] | length" volume show kept)" 0
is "copies" "$(json '[.copies[] | select(.state == "current")] | length' volume show kept)" 2
nbd "$(uri kept)" 'assert h.pread(512 * 8192, 0) == b"what two disks have".ljust(512, b".") * 8192'
daemon_stop
for image in "$dir"/disks/*.img; do
	expect 0 '' q disk check "$image"
done
passed
