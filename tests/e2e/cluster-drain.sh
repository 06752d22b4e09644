#!/bin/bash
# limit: 300
# cluster-drain.sh: a node is drained, while a client writes and checks what it reads: its copies go to the other nodes, what is
# attached there is served by one of them, and what cannot go is named. It is killed on the way, and goes on.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
nodes="n1 n2 n3"
cluster_begin $nodes
for v in v idle; do
	expect 0 '' qn n1 volume create $v --size 3G --replicas 2
	expect 0 '^nbd' qn n1 volume attach $v --nbd
	nbd "$(node_uri n1 $v)" 'for i in range(3): h.pwrite(bytes([i + 1]) * (32 << 20), (2 * i + 1) << 29)'
done
expect 0 '' qn n1 snapshot create idle@s
expect 0 '' qn n1 volume detach idle
expect 0 '' qn n2 volume create alone --size 64M
expect 0 '^nbd' qn n1 volume attach alone --nbd
nbd "$(node_uri n1 alone)" 'h.pwrite(b"a" * 4096, 0)'
client_begin $nodes

say "a node is drained, from another one; it is killed on the way"
expect 1 'there is no node' qn n2 node drain n9
expect 0 "node 'n1': .* to go" qn n2 node drain n1
expect 0 'nothing|to go' qn n3 node drain n1
holds node_event n1 node-draining
node_kill n1
is "its state" "$(jsonn n2 '.nodes[] | select(.name == "n1") | .drain.done' node list)" false
node_start n1
served_elsewhere() {
	local by
	by=$(head_of n2 v)
	[ "$by" != n1 ] && serves "$by" v
}
until_true 40 served_elsewhere
pause_of_client
say "the client's longest pause: $pause ms"

say "what cannot go is named"
is_told() { jsonn n3 .drain.why node show n1 | grep -q 'volume alone has one copy'; }
until_true 30 is_told
expect 1 'alone has one copy' qn n2 node drain n1 --wait
expect 1 'alone has one copy' qn n1 status
expect 1 'n1 is being drained' qn n1 volume attach idle --nbd
expect 1 'n1 is being drained' qn n2 volume move v n1
expect 1 'n1 is being drained' qn n1 disk add "$dir/n1/disks/b.img" --size 1G
disk=$(jsonn n1 '.disks[] | .name | select(startswith("n1"))' disk list)
expect 1 'quarry node drain n1 --cancel' qn n1 disk drain "$disk" --cancel
expect 0 '' qn n1 volume set alone --replicas 2

say "all of it goes"
expect 0 'done, it holds nothing' qn n3 node drain n1 --wait
expect 0 '^n1 +drained' qn n2 node list
expect 1 'node n1.*it is drained' qn n1 status
is "its disk's users" "$(jsonn n2 '[.volumes[] | select(.copies[]?.name | startswith("n1"))] | length' volume list)" 0
told() { node_event n1 node-drained; }
until_true 10 told
by=$(head_of n2 alone)
holds test "$by" != n1
nbd "$(node_uri "$by" alone)" 'assert h.pread(4096, 0) == b"a" * 4096'
expect 0 '^nbd' qn n2 volume attach idle --nbd
nbd "$(node_uri n2 idle)" 'assert all(h.pread(512, (2 * i + 1) << 29)[0] == i + 1 for i in range(3))'
node_stop n1
read -r -t 3 <> <(:) || true # nobody misses it
node_start n1

say "it is drained no more"
until_true 15 answers n2 n1 true
expect 0 'drained no more' qn n2 node drain n1 --cancel
state_is_running() { [ "$(jsonn n2 '.nodes[] | select(.name == "n1") | .drain' node list)" = null ]; }
holds state_is_running
takes_again() { qn n2 volume move v n1; }
until_true 10 takes_again
client_end
cluster_passed
