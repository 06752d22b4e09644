#!/bin/bash
# limit: 120
# cluster-peers.sh: the door of a node's disks for other nodes: who may come in, who answers, and what is refused before a start.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require_daemon
etcd_start
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$dir/key")
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$dir/other-key")
cp "$dir/key" "$dir/open-key"
chmod 644 "$dir/open-key"
peer_line() { # ADDRESS MORE
	echo "peer = { listen = \"$1\"; $2 };"
}

say "what is refused"
refused() { # PATTERN ADDRESS MORE
	node_configure n0 "$(peer_line "$2" "$3")"
	expect 2 "$1" "$quarryd" --config "$dir/n0/quarry.conf" --check-config
}
refused 'peer.listen: needs peer.key_file, which holds the cluster.s key' 127.0.0.1:1 ''
refused 'peer.listen: needs peer.key_file: peer.insecure is for a loopback address only' 10.0.0.1:1 'insecure = true;'
refused 'peer.key_file: .*/none' 127.0.0.1:1 "key_file = \"$dir/none\";"
refused 'peer.key_file: .*/open-key.*must be its owner' 127.0.0.1:1 "key_file = \"$dir/open-key\";"

say "three nodes with a key, one with another"
for n in n1 n2 n3 n4; do
	key=$([ $n = n4 ] && echo other-key || echo key)
	node_configure $n "$(peer_line "127.0.0.1:$(port_free)" "key_file = \"$dir/$key\";")"
	node_start $n
	qn $n disk add "$dir/$n/disks/a.img" --size 256M >/dev/null
done
for n in n1 n2 n3; do
	for of in n1 n2 n3; do
		[ $n = $of ] || until_true 15 answers $n $of true
	done
	until_true 15 answers $n n4 false
done
until_true 15 answers n4 n1 false
expect 0 '^n2 +running +1 +0 .* answers +zone=z-n2$' qn n1 node list
expect 0 '^n4 +running .* silent +zone=z-n4$' qn n1 node list
expect 0 'peer address: +127.0.0.1:' qn n1 node show n2

say "one stands still, dies, is back"
node_pause n2
until_true 15 answers n1 n2 false
node_continue n2
until_true 15 answers n1 n2 true
node_kill n2
until_true 15 state_is n1 n2 lost
until_true 5 answers n1 n2 null # nobody asks it
node_start n2
until_true 15 answers n1 n2 true
expect 0 '' qn n2 disk remove n2-d1
node_stop n3
until_true 15 answers n1 n3 null

say "without a key, on loopback"
for n in n5 n6; do
	node_configure $n "$(peer_line "127.0.0.1:$(port_free)" 'insecure = true;')"
	node_start $n
done
until_true 15 answers n5 n6 true
until_true 15 answers n6 n5 true
until_true 15 answers n5 n1 false
cluster_passed
