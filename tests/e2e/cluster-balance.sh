#!/bin/bash
# limit: 300
# cluster-balance.sh: three nodes, and a fourth with an empty disk joins: segments move there, while a client writes and checks what
# it reads, and the node that has them move is killed. Copies stay on different nodes, and nothing moves back.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
nodes="n1 n2 n3"
cluster_begin $nodes
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
node_add_disk n4
used_of() { # NODE: percent of its disk
	jsonn "$1" ".disks[] | select(.node == \"$1\") | 100 * .used_bytes / .size_bytes | floor" disk list
}
how_full() { say "full: n1 $(used_of n1) %, n2 $(used_of n2) %, n3 $(used_of n3) %, n4 $(used_of n4) %"; }
how_full
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
extremes() { # how full the emptiest and the fullest are
	local n
	for n in n1 n2 n3 n4; do
		used_of $n
	done | sort -n | sed -n '1p;$p' | paste -s -d ' '
}
is_even() {
	local least most
	read -r least most < <(extremes)
	[ $((most - least)) -lt 42 ] # a copy stays with the head of v up to there
}
until_true 120 is_even
how_full
is_over() { ! is_planned; }
until_true 90 is_over
was=$(extremes)
read -r -t 35 <> <(:) || true # two looks and more: nothing may move
is "how full the emptiest and the fullest are, later" "$(extremes)" "$was"

say "all that was written is there"
expect 0 '^nbd' qn n2 volume attach idle --nbd
for v in v idle; do
	head=$(head_of n2 $v)
	nbd "$(node_uri "$head" $v)" 'assert all(h.pread(512, ((2 * i + 1) << 29) + (29 << 20))[0] == i + 1 for i in range(12))'
	is "bytes of $v with too few copies" "$(jsonn "$head" .degraded_bytes volume show $v)" 0
done
client_end
cluster_passed
