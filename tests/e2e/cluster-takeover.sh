#!/bin/bash
# limit: 420
# cluster-takeover.sh [ROUNDS]: the node that serves a volume is killed, or stands still, again and again, while a client writes and
# checks what it reads: it looks for the volume at each node until one serves it. No completed write is lost, no node
# serves it beside another, and the client's pause is short. What cannot be taken over stays. Default: 4 rounds.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
rounds=${1:-4}
require_daemon
nodes="n1 n2 n3"
cluster_begin $nodes
current() { # NODE N: has v so many current copies?
	[ "$(jsonn "$1" '[.copies[] | select(.state == "current")] | length' volume show v)" = "$2" ]
}
expect 0 '' qn n1 volume create v --size 2G --replicas 3
qn n1 volume create alone --size 64M >/dev/null
for v in v alone; do
	expect 0 '^nbd' qn n1 volume attach $v --nbd
	nbd "$(node_uri n1 $v)" 'h.pwrite(b"x" * 4096, 0)'
done

client_begin $nodes
another_of() { # NODE: one that is not it
	[ "$1" = n1 ] && echo n2 || echo n1
}
taken_from() { # NODE: another one serves v
	local by
	by=$(head_of "$(another_of "$1")" v)
	[ "$by" != "$1" ] && serves "$by" v
}
read -r -t 6 <> <(:) || true # three leases: a node that has just started takes nothing over
pause_of_client
worst=0
for round in $(seq "$rounds"); do
	from=$(head_of n1 v)
	if [ $((round % 2)) = 1 ]; then
		say "round $round: $from, which serves it, is killed"
		node_kill "$from"
	else
		say "round $round: $from, which serves it, stands still"
		node_pause "$from"
	fi
	until_true 15 taken_from "$from"
	to=$(head_of "$(another_of "$from")" v)
	pause_of_client
	[ "$pause" -lt "$worst" ] || worst=$pause
	say "taken over by $to; the client's longest pause: $pause ms"
	holds node_event "$to" volume-taken-over
	if [ $((round % 2)) = 1 ]; then
		[ "$from" != n1 ] || expect 1 'alone' qn "$to" status
		node_start "$from"
	else
		node_continue "$from"
	fi
	until_true 60 current "$to" 3
	is "who serves it, as $from says" "$(head_of "$from" v)" "$to"
done
# lease_ms, what etcd rounds it up by, and two seconds
holds test "$worst" -lt 5500

say "it is moved to another node, while the client is at it"
from=$(head_of n1 v)
to=$(another_of "$from")
expect 1 'alone has one copy' qn n1 volume move alone n2
expect 1 "there is no node 'n9'" qn n1 volume move v n9
pause_of_client
expect 0 "by node '$to' from now on" qn "$from" volume move v "$to"
until_true 10 serves "$to" v
pause_of_client
say "the client's longest pause: $pause ms"
expect 0 'nothing changed' qn "$from" volume move v "$to"
expect 0 "by node '$from' from now on" qn "$from" volume move v "$from" # sent on to whom it concerns
until_true 10 serves "$from" v
until_true 30 current "$from" 3

say "a node that was stopped keeps what it had"
from=$(head_of n1 v)
other=$(another_of "$from")
node_stop "$from"
until_true 10 state_is "$other" "$from" stopped
read -r -t 4 <> <(:) || true # longer than a lease: nothing must happen
is "whose it is" "$(head_of "$other" v)" "$from"
node_start "$from"
until_true 20 serves "$from" v
client_end
holds grep -q '^good' "$dir/client"
until_true 60 current n1 3
until_true 20 serves n1 alone
for n in $nodes; do
	node_stop $n
done
for n in $nodes; do
	expect 0 '' "$BUILD/quarry" disk check "$dir/$n/disks/a.img"
done
passed
