#!/bin/bash
# limit: 300
# cluster-balance.sh: three nodes, and a fourth with an empty disk joins: segments move there, while a client writes and checks what
# it reads, and the node that has them move is killed. Copies stay on different nodes, and nothing moves back.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
etcd_start
nodes="n1 n2 n3"
nodes_start $nodes
for n in $nodes; do
	qn "$n" disk add "$dir/$n/disks/a.img" --size 1G >/dev/null
done
for n in $nodes; do
	until_true 30 places "$n" 3
done
expect 0 '' qn n1 volume create v --size 12G --replicas 2
expect 0 '' qn n1 volume create idle --size 12G --replicas 2
for v in v idle; do
	expect 0 '^nbd' qn n1 volume attach $v --nbd
	nbd "$(node_uri n1 $v)" 'for i in range(12): h.pwrite(bytes([i + 1]) * (30 << 20), (2 * i + 1) << 29)'
done
expect 0 '' qn n1 volume detach idle
client_begin $nodes

say "a node with an empty disk joins"
nodes_start n4
qn n4 disk add "$dir/n4/disks/a.img" --size 1G >/dev/null
used_of() { # NODE: percent of its disk
	jsonn "$1" ".disks[] | select(.node == \"$1\") | 100 * .used_bytes / .size_bytes | floor" disk list
}
say "full: n1 $(used_of n1) %, n2 $(used_of n2) %, n3 $(used_of n3) %, n4 $(used_of n4) %"
planner() { jsonn n4 '.balance.node // ""' status || true; }
is_planned() { [ -n "$(planner)" ]; }
until_true 60 is_planned
by=$(planner)
say "node $by has segments move"
has_moved() { [ "$(used_of n4)" -ge 8 ]; }
until_true 60 has_moved

say "it is killed on the way"
node_kill "$by"
until_true 20 state_is n4 "$by" lost
node_start "$by"
least() { # the node with the emptiest disk is not far behind the one with the fullest
	local n all=""
	for n in n1 n2 n3 n4; do
		all+="$(used_of $n) "
	done
	echo "$all" | tr ' ' '\n' | grep . | sort -n | sed -n '1p;$p' | paste -s -d ' '
}
is_even() {
	local a b
	read -r a b < <(least)
	[ $((b - a)) -lt 42 ] # a copy stays with the head of v up to there
}
until_true 120 is_even
say "full: n1 $(used_of n1) %, n2 $(used_of n2) %, n3 $(used_of n3) %, n4 $(used_of n4) %; v is on $(jsonn n4 .node volume show v)"
is_over() { ! is_planned; }
until_true 90 is_over
was=$(least)
read -r -t 35 <> <(:) || true # two looks and more: nothing may move
is "how full the emptiest and the fullest are, later" "$(least)" "$was"

say "all that was written is there"
head=$(jsonn n2 .node volume show v)
nbd "$(node_uri "$head" v)" 'assert all(h.pread(512, ((2 * i + 1) << 29) + (29 << 20))[0] == i + 1 for i in range(12))'
expect 0 '^nbd' qn n2 volume attach idle --nbd
nbd "$(node_uri "$(jsonn n2 .node volume show idle)" idle)" 'assert all(h.pread(512, ((2 * i + 1) << 29) + (29 << 20))[0] == i + 1 for i in range(12))'
for v in v idle; do
	is "GiB of $v with too few copies" "$(jsonn "$(jsonn n2 .node volume show $v)" .degraded_bytes volume show $v)" 0
done
client_end
cluster_passed
