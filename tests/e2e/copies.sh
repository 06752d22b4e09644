#!/bin/bash
# limit: 600
# copies.sh [ROUNDS]: volumes with several copies on three disks, under a load that knows what every sector may hold: the daemon is
# killed, a disk is away for a while and comes back, blocks of a disk are damaged, a disk fills up. Every completed write
# must be there, whichever copy is read, and status tells how many copies there are of what. Default: 6 rounds.
. "$(dirname "$0")/lib.sh"
require nbdsh jq
rounds=${1:-6}
seed_choose
require_daemon
CACHE_MB=64 daemon_configure
daemon_start
for i in 1 2 3; do
	disk_make "d$i" 512M
done
q volume create two --size 64M --replicas 2 >/dev/null
q volume create three --size 3G --replicas 3 >/dev/null
q volume create one --size 64M >/dev/null
for v in one two three; do
	q volume attach $v --nbd >/dev/null
done

say "what cannot be kept is refused"
expect 1 '4 failure domains' q volume create four --size 64M --replicas 4
expect 1 '4 failure domains' q volume set two --replicas 4
expect 1 'would wait for ever' q volume set two --replicas 1 --min-replicas 2
expect 1 'more than there are copies' q volume set two --min-replicas 3
expect 0 '' q volume set three --min-replicas 2
is "min_replicas" "$(q --json volume show three | jq .min_replicas)" 2
expect 0 '' q volume set three --min-replicas 1

copies() { # VOLUME STATE: how many of its copies are so
	q --json volume show "$1" | jq --arg state "$2" '[.copies[] | select(.state == $state)] | length'
}
all_current() {
	[ "$(copies two stale)$(copies two resyncing)$(copies three stale)$(copies three resyncing)" = 0000 ]
}

say "the number of copies changes under load, and under a daemon that is killed"
q volume create more --size 64M >/dev/null
q volume attach more --nbd >/dev/null
even() { # VOLUME: each piece of it has as many copies as it is to have
	[ "$(q --json volume show "$1" | jq '.degraded_bytes + .surplus_bytes')" = 0 ]
}
load_begin tests/e2e/loadgen --seed "$seed" --window-mib 12 "$(uri more)"
for n in 2 3 1 2; do
	load_tell load 3000
	load_hear loading
	expect 0 '' q volume set more --replicas $n
	until_true 60 even more
	load_hear "done"
	load_tell verify
	load_hear verified
done
load_tell load
load_hear loading
expect 0 '' q volume set more --replicas 3
daemon_kill
load_hear lost
daemon_start
load_tell verify
load_hear verified
until_true 60 even more
load_end
is "copies of more" "$(q --json volume show more | jq '.copies | length')" 3
expect 0 'replicas-even' q --json events
expect 0 '' q status
q volume detach more >/dev/null
evened() { q --json events | grep -c 'replicas-even' || true; }
n_evened=$(evened)
more_evened() { [ "$(evened)" -gt "$n_evened" ]; }
q volume set more --replicas 1 >/dev/null
until_true 30 more_evened
q volume attach more --nbd >/dev/null
holds even more
q volume detach more >/dev/null
q volume delete more >/dev/null

say "killed under load, now and then with a disk away"
load_begin tests/e2e/loadgen --seed "$seed" --window-mib 12 "$(uri two)" "$(uri three)"
round=0 away=
while [ $round -lt "$rounds" ]; do
	round=$((round + 1))
	load_tell load
	load_hear loading
	delay 1200
	daemon_kill
	load_hear lost
	if [ -n "$away" ]; then
		mv "$dir/$away.away" "$dir/disks/$away.img"
		away=
	elif [ $((round % 2)) = 1 ]; then
		away=d$((RANDOM % 3 + 1))
		mv "$dir/disks/$away.img" "$dir/$away.away"
		# the volume with one copy may lie there: it is not in this
	fi
	daemon_start
	load_tell verify
	load_hear verified
	if [ -n "$away" ]; then
		is "stale copies of three" "$(copies three stale)" 1
		expect 1 'volume three' q status
	fi
done
load_end
daemon_stop
[ -z "$away" ] || mv "$dir/$away.away" "$dir/disks/$away.img"
daemon_start
until_true 60 all_current
for v in one two three; do
	expect 0 '' q volume detach $v
done
q volume delete two >/dev/null
q volume delete three >/dev/null

say "damaged blocks are healed from the other copy"
q volume create healed --size 64M --replicas 2 >/dev/null
q volume attach healed --nbd >/dev/null
nbdsh -u "$(uri healed)" -c 'h.pwrite(b"a pattern that is found".ljust(512, b".") * 4096, 0); h.flush()'
daemon_stop
cat >"$dir/damage.py" <<'END'
import sys
# Turns a bit over in every other block that holds the pattern; says how many.
n = 0
with open(sys.argv[1], "r+b") as f:
    data = f.read()
    for at in range(0, len(data), 4096):
        if data[at:at + 23] == b"a pattern that is found":
            n += 1
            if n % 2:
                f.seek(at + 100)
                f.write(b"!")
print(n)
END
cat >"$dir/damaged.py" <<'END'
import sys
data = open(sys.argv[1], "rb").read()
print(sum(data[at:at + 23] == b"a pattern that is found" and data[at + 100:at + 101] == b"!" for at in range(0, len(data), 4096)))
END
for image in "$dir"/disks/*.img; do
	n=$(python3 "$dir/damage.py" "$image")
	[ "$n" = 0 ] || break # of one copy
done
n_damaged=$(python3 "$dir/damaged.py" "$image")
say "${image##*/}: a bit turned over in $n_damaged of $n blocks"
holds test "$n_damaged" -gt 0
daemon_start
nbdsh -u "$(uri healed)" -c 'for i in range(2): assert h.pread(512 * 4096, 0) == b"a pattern that is found".ljust(512, b".") * 4096'
expect 0 'blocks-healed' q --json events
daemon_stop
n_left=$(python3 "$dir/damaged.py" "$image")
say "of $n_damaged damaged blocks $n_left are left, which were read from the other copy"
holds test "$n_left" -lt "$n_damaged"

say "and a scrub heals what nobody has read, though the volume is not attached by anybody"
daemon_start
q volume detach healed >/dev/null
disk=n1-$(basename "$image" .img)
expect 0 "$n_left bad blocks, $n_left of them healed" q disk scrub "$disk" --wait
expect 0 '' q status
q volume attach healed --nbd >/dev/null
expect 0 '0 bad blocks' q disk scrub "$disk" --wait
compared() { q --json events | jq -e '[.events[] | select(.code == "copies-compared" and .level == "info")] | length > 0' >/dev/null; }
until_true 30 compared
is "differing blocks" "$(q --json volume show healed | jq .differing_blocks)" 0
is "disks with damage" "$(q --json disk list | jq '[.disks[] | select(.scrub.bad_blocks != .scrub.healed_blocks)] | length')" 0
daemon_stop
is "damaged blocks" "$(python3 "$dir/damaged.py" "$image")" 0
expect 0 '' q disk check "$image"

say "a disk that is full costs no copy"
daemon_start
q pool create small >/dev/null
disk_make s1 64M --pool small
disk_make s2 256M --pool small
q volume create full --size 1G --replicas 2 --pool small >/dev/null
q volume attach full --nbd >/dev/null
nbdsh -u "$(uri full)" -c '
import errno
n = 0
try:
    for n in range(512):
        h.pwrite(bytes([n % 250 + 1]) * 262144, n * 262144)
    raise SystemExit("all of it fits?")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
for i in range(n):
    assert h.pread(262144, i * 262144) == bytes([i % 250 + 1]) * 262144
h.trim(n * 262144, 0)
h.flush()
h.pwrite(b"x" * 4096, 0)'
is "stale copies of full" "$(copies full stale)" 0
is "current copies of full" "$(copies full current)" 2
passed
