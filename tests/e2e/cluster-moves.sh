#!/bin/bash
# limit: 420
# cluster-moves.sh: the copies of a volume leave one node for another, while a client writes: a disk is drained, a node is gone
# for good, and the disk of the head's own node is an older copy of itself. No client has an error, every completed write
# is there, and a disk that has been left holds nothing.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
etcd_start
REBUILD_S=12 nodes_start n1 n2 n3 n4
for n in n1 n2; do
	node_add_disk $n
done
until_true 15 answers n1 n2 true
until_true 15 answers n2 n1 true
lies_on() { # NODES: are the current copies of both volumes there, as n1 says?
	local v
	for v in v w; do
		[ "$(jsonn n1 '[.copies[] | select(.state == "current") | .name] | sort | join(" ")' volume show $v |
			sed 's/-[^ ]*//g')" = "$1" ] || return 1
	done
}
uri_v=$(node_uri n1 v)
held() { nbd "$uri_v" 'print(*[h.pread(512, i << 20)[0] for i in range(4)])'; }
put() { nbd "$uri_v" "h.pwrite(bytes([$1]) * 1048576, $2 * 1048576); h.flush()"; } # BYTE AT: MiB

say "the own disk of the head's node is older than the volume"
node_stop n1
cp "$dir/n1/disks/a.img" "$dir/older.img"
node_start n1
until_true 30 places n1 2
for v in v w; do
	expect 0 '' qn n1 volume create $v --size 3G --replicas 2
	expect 0 '^nbd' qn n1 volume attach $v --nbd
done
nbd "$(node_uri n1 w)" 'h.pwrite(b"w" * 4096, 2 << 30)'
put 1 0
expect 0 '' qn n1 snapshot create v@s
put 2 1
older() { # WANTED
	node_stop n1
	cp "$dir/older.img" "$dir/n1/disks/a.img"
	node_start n1
	is "what is read without it" "$(held)" "$1"
	expect 1 'is an older copy' qn n1 disk add "$dir/n1/disks/a.img"
	expect 0 '' qn n1 disk add "$dir/n1/disks/a.img" --accept-older
	for _ in 1 2 3 4; do
		is "what is read" "$(held)" "$1"
	done
	until_true 30 lies_on "n1 n2"
	is "what is read of both" "$(held)" "$1"
}
older "1 2 0 0"

say "and older than its last start"
node_stop n1
cp "$dir/n1/disks/a.img" "$dir/older.img"
node_start n1
put 3 0
put 4 3
older "3 2 0 4"

say "a disk is drained: the copies go to another node"
node_add_disk n3
until_true 15 answers n1 n3 true
load_begin tests/e2e/loadgen --seed $((RANDOM + 1)) --depth 4 --window-mib 12 "$(node_uri n1 w)"
load_tell load 20000
load_hear loading
disk_n2=$(jsonn n1 '.copies[] | .name | select(startswith("n2"))' volume show v)
expect 0 '' qn n1 disk drain "$disk_n2"
until_true 60 lies_on "n1 n3"
is_drained() { [ "$(jsonn n1 .drain.done disk show "$disk_n2")" = true ]; }
until_true 30 is_drained
holds node_event n2 disk-drained
load_hear "done"
load_tell verify
load_hear verified
say "$heard"
expect 0 '' qn n1 disk remove "$disk_n2"
expect 0 '' qn n1 status

say "a node is gone for good: its copies are made anew on another one"
node_add_disk n4
until_true 15 answers n1 n4 true
load_tell load 20000
load_hear loading
node_kill n3
until_true 10 lies_on n1
until_true 90 lies_on "n1 n4"
holds node_event n1 rebuild-begun
load_hear "done"
load_tell verify
load_hear verified
say "$heard"
load_end

say "it comes back after all: nothing of what it has counts, and it is freed"
node_start n3
forgotten() { [ "$(jsonn n1 '.copies | length' volume show v)" = 2 ] && holds_nothing n3; }
holds_nothing() { # NODE: but for its journal and maps
	[ "$(jsonn "$1" ".disks[] | select(.node == \"$1\") | .used_bytes - .journal.size_bytes" disk list)" -lt 1048576 ]
}
until_true 30 forgotten
for v in v w; do
	expect 0 '' qn n1 volume detach $v
done
expect 0 '^nbd' qn n4 volume attach v@s --nbd
node_stop n1
nbd "$(node_uri n4 v@s)" 'assert h.pread(512, 0)[0] == 1 and h.pread(512, 1 << 20)[0] == 0'
node_start n1
for n in n1 n2 n3 n4; do
	node_stop $n
done
for n in n1 n3 n4; do
	expect 0 '' "$BUILD/quarry" disk check "$dir/$n/disks/a.img"
done
is "trees on the disk of n3" "$("$BUILD/quarry" disk check "$dir/n3/disks/a.img" | grep -oE '[0-9]+ trees?' | head -n 1)" "0 trees"
passed
