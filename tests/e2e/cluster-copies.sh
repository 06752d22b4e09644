#!/bin/bash
# limit: 420
# cluster-copies.sh: volumes with copies on the disks of several nodes, under a load that knows what every sector may hold: a node with
# a copy dies and comes back, stands still, and the node that serves a volume dies and another takes it over. Every completed
# write must be there, clients of a volume whose head lives see no error, and what a node has missed is all that is copied.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
etcd_start
nodes_start n1 n2 n3 n4
for n in n1 n2 n3; do
	node_add_disk $n
done

copies() { # NODE VOLUME STATE: how many of its copies are so, as NODE says
	jsonn "$1" "[.copies[] | select(.state == \"$3\")] | length" volume show "$2"
}
current() { [ "$(copies "$1" "$2" current)" = "$3" ]; }
head_is() { ln -sfn "$dir/$1/nbd.sock" "$dir/$2.sock"; } # NODE VOLUME: where clients find it
at() { echo "nbd+unix:///$1?socket=$dir/$1.sock"; }
pass_s() { read -r -t "$1" <> <(:) || true; } # the one place where time passes on purpose: a load runs meanwhile

say "what cannot be kept is refused"
until_true 30 places n1 3
until_true 30 places n4 2
until_true 30 places n2 3
expect 1 '4 copies must lie in 4 failure domains .node., and the disks of pool default are in 3' \
	qn n1 volume create four --size 1G --replicas 4

say "three copies on three nodes; a client without a disk of its own; one copy stays where it is"
qn n2 volume create v --size 3G --replicas 3 >/dev/null
qn n2 volume create alone --size 64M >/dev/null
expect 0 '^nbd' qn n1 volume attach v --nbd
head_is n1 v
qn n4 volume create w --size 64M --replicas 2 >/dev/null
expect 0 '^nbd' qn n4 volume attach w --nbd
nbd "$(node_uri n4 w)" 'h.pwrite(b"w" * (1 << 20), 4096)'
load_begin tests/e2e/loadgen --seed $((RANDOM + 1)) --depth 4 --window-mib 12 "$(at v)"
load_tell load
load_hear loading

# A client that is never told of an error, and how long it had to wait at most.
writer='
import os, sys, time
d = sys.argv[1]
out = open(d + "/pauses", "w", buffering=1)
h.pwrite(b"\1" * 4096, 2 << 30)
out.write("begun\n")
n, worst, last = 1, 0, time.monotonic()
while not os.path.exists(d + "/enough"):
    n += 1
    h.pwrite(n.to_bytes(8, "little") * 512, (2 << 30) + n % 1024 * 4096)
    now = time.monotonic()
    worst, last = max(worst, now - last), now
    if os.path.exists(d + "/reset"):
        os.unlink(d + "/reset")
        out.write("pause %d\n" % (worst * 1000))
        worst, last = 0, time.monotonic()
out.write("done %d %d\n" % (n, worst * 1000))
'
writer_start() {
	rm -f "$dir/pauses" "$dir/enough"
	nbdsh -u "$(at v)" -c "import sys; sys.argv = ['writer', '$dir']" -c "$writer" 7>&- 8<&- &
	writer_pid=$!
	others+=("$writer_pid")
	until_true 10 grep -q begun "$dir/pauses"
}
writer_pause() { # sets $pause: the longest wait since the last time, in ms
	: >"$dir/reset"
	until_true 30 test ! -e "$dir/reset"
	pause=$(grep pause "$dir/pauses" | tail -n 1 | cut -d' ' -f2)
}
writer_start
until_true 20 current n1 v 3
pass_s 2
writer_pause

say "a node with a copy dies"
node_kill n3
until_true 10 current n1 v 2
pass_s 1
writer_pause
say "the longest pause of a client: $pause ms"
holds test "$pause" -lt 3000
expect 1 'volume v' qn n1 status
holds node_event n1 copy-stale
expect 0 '' qn n1 snapshot create v@lost
expect 0 'not measured: *disk .* of node n3 cannot be asked: its node cannot be reached' qn n1 snapshot show v@lost
is "what is not known of it" "$(jsonn n1 '[.unique_bytes, .shared_bytes, .frees_bytes] | tostring' snapshot show v@lost)" \
	'[null,null,null]'
expect 0 '' qn n1 snapshot delete v@lost

say "it comes back, and takes over what it has missed"
node_start n3
until_true 60 current n1 v 3
until_true 60 current n4 w 2
qn n1 --json events | jq -r '.events[] | select(.code == "copy-current") | .message' | sed 's/^/    /'

say "it stands still, and goes on"
node_pause n3
until_true 20 current n1 v 2
node_continue n3
until_true 60 current n1 v 3
writer_pause
say "the longest pause of a client: $pause ms"
: >"$dir/enough"
holds wait "$writer_pid"
say "$(tail -n 1 "$dir/pauses")"

say "the node that serves it dies: another one takes over by itself"
load_on() {
	load_tell load
	load_hear loading
}
node_kill n1
load_hear lost
begun=$(date +%s%N)
taken() {
	to=$(head_of n2 v)
	[ "$to" != n1 ] && serves "$to" v
}
until_true 20 taken
say "attached on $to $((($(date +%s%N) - begun) / 1000000)) ms after its head had died"
head_is "$to" v
load_tell verify
load_hear verified
say "$heard"
is "current copies of v" "$(copies "$to" v current)" 2
node_start n1
if [ "$to" != n2 ]; then
	until_true 60 current "$to" v 3
	expect 0 '' qn "$to" volume detach v
	expect 0 '^nbd' qn n2 volume attach v --nbd
	head_is n2 v
fi
until_true 60 current n2 v 3
expect 0 'n2/nbd.sock' qn n1 volume attach v --nbd

say "snapshots, clones and rollbacks are on all nodes"
nbd "$(at v)" 'h.pwrite(b"a" * 65536, 5 << 29, nbd.CMD_FLAG_FUA)'
expect 0 '' qn n2 snapshot create v@s
nbd "$(at v)" 'h.pwrite(b"b" * 65536, 5 << 29, nbd.CMD_FLAG_FUA)'
expect 0 '' qn n2 volume clone v@s c
expect 0 '^nbd' qn n2 volume attach v@s --nbd
nbd "nbd+unix:///v@s?socket=$dir/n2/nbd.sock" 'assert h.pread(65536, 5 << 29) == b"a" * 65536'
expect 0 '' qn n2 volume detach v@s
expect 0 '^nbd' qn n4 volume attach c --nbd
nbd "$(node_uri n4 c)" 'assert h.pread(65536, 5 << 29) == b"a" * 65536; h.pwrite(b"c" * 4096, 5 << 29)'
is "current copies of the clone" "$(copies n4 c current)" 3
expect 0 '' qn n4 snapshot create c@q
nbd "$(node_uri n4 c)" 'h.pwrite(b"d" * 16384, 5 << 29)'
for n in n1 n2 n4; do # the other blocks v@s has, too; n4 has no disk
	is "what only the snapshot has, on three nodes, says $n" "$(jsonn $n .unique_bytes snapshot show c@q)" $((3 * 4096))
done
is "told with it" "$(jsonn n2 '[.data_bytes == .unique_bytes + .shared_bytes, .unmeasured] | tostring' snapshot show c@q)" \
	'[true,null]'
expect 0 '' qn n4 snapshot delete c@q
expect 0 '' qn n4 volume detach c

say "all nodes die at once"
load_on
for n in n1 n2 n3 n4; do
	kill -KILL "${node_pid[$n]}"
done
for n in n1 n2 n3 n4; do
	wait "${node_pid[$n]}" 2>/dev/null || true
	unset "node_pid[$n]"
done
load_hear lost
for n in n1 n2 n3 n4; do
	node_start $n
done
until_true 30 serves n2 v
until_true 30 serves n4 w
load_tell verify
load_hear verified
say "$heard"
until_true 60 current n2 v 3
until_true 60 current n4 w 2
nbd "$(node_uri n4 w)" 'assert h.pread(1 << 20, 4096) == b"w" * (1 << 20)'
load_end

say "a clean stop costs no copy, and what is deleted is gone everywhere"
node_stop n2
node_start n2
until_true 10 serves n2 v
is "current copies of v" "$(copies n2 v current)" 3
for pair in "n2 v" "n4 w"; do
	# shellcheck disable=SC2086
	set -- $pair
	expect 0 '' qn "$1" volume detach "$2"
done
expect 0 '' qn n3 snapshot rollback v@s
expect 0 '^nbd' qn n3 volume attach v --nbd
nbd "$(node_uri n3 v)" 'assert h.pread(65536, 5 << 29) == b"a" * 65536'
expect 0 '' qn n3 volume detach v
expect 0 '' qn n1 volume delete v --snapshots
expect 0 '' qn n2 volume delete w
expect 0 '' qn n3 volume delete c
gone() { [ "$(jsonn n1 '[.volumes[].name] | join(" ")' volume list)" = alone ]; }
until_true 60 gone
nothing_is_reclaimed() { # what is deleted is freed in the background
	local n
	for n in n1 n2 n3 n4; do
		[ "$(jsonn $n .reclaiming.trees status)" = 0 ] || return 1
	done
}
until_true 60 nothing_is_reclaimed
for n in n1 n2 n3 n4; do
	node_stop $n
done
for n in n1 n2 n3; do
	expect 0 '' "$BUILD/quarry" disk check "$dir/$n/disks/a.img"
	# n2 has the volume that stays
	[ $n = n2 ] || is "trees on the disk of $n" "$("$BUILD/quarry" disk check "$dir/$n/disks/a.img" | grep -oE '[0-9]+ trees?' | head -n 1)" "0 trees"
done
passed
