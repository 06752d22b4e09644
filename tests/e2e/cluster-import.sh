#!/bin/bash
# limit: 240
# cluster-import.sh: nodes that worked alone are moved into a cluster, with all that they have; what clashes is refused, and an
# import that was killed goes on when it is repeated.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
etcd_url=http://127.0.0.1:$(port_free)
etcd_peer_url=http://127.0.0.1:$(port_free)

import() { # NODE
	qn "$1" cluster import-embedded --config "$dir/$1/quarry.conf"
}
alone() { # NODE: its configuration names its own store
	node_configure "$1"
	sed -i '/^metadata/d' "$dir/$1/quarry.conf"
}

say "two nodes that work alone"
for n in n1 n2; do
	alone $n
	node_start $n
	qn $n disk add "$dir/$n/disks/a.img" --size 512M >/dev/null
	qn $n volume create data --size 2G >/dev/null
	qn $n volume attach data --nbd >/dev/null
	nbd "$(node_uri $n data)" "h.pwrite(b'$n' * 32768, 0); h.pwrite(b'far' * 4096, 3 << 29); h.flush()"
	qn $n snapshot create data@s >/dev/null
	nbd "$(node_uri $n data)" 'h.pwrite(b"x" * 4096, 0); h.flush()'
	qn $n volume clone data@s "clone-$n" >/dev/null
	qn $n volume attach data@s --nbd >/dev/null
done
qn n1 pool create fast --failure-domain node >/dev/null
expect 1 'in use by another quarryd|metadata.backend is "embedded"' import n1

say "what is missing is said"
node_stop n1
expect 1 'metadata.backend is "embedded": write  metadata = \{ backend = "etcd"' import n1
node_configure n1
expect 1 'metadata.endpoints: no endpoint of etcd answers' import n1
etcd_run
node_configure n3
expect 1 'there is nothing to import' import n3
node_start n3 # it founds the cluster: another one than the disks of n1 are of
expect 0 '' qn n3 pool create fast --failure-domain zone

say "clashes are refused, all of them, and nothing is changed"
expect 0 '' qn n3 volume create data --size 1G
expect 1 'pool fast: the cluster has one of that name with other properties' import n1
expect 1 'volume data: the cluster has one of that name' import n1
is "volumes of the cluster" "$(jsonn n3 '[.volumes[].name] | join(" ")' volume list)" data
is "disks of the cluster" "$(jsonn n3 '.disks | length' disk list)" 0
expect 0 '' qn n3 volume delete data
expect 0 '' qn n3 pool set fast --failure-domain node
gone() { [ "$(jsonn n3 '.volumes | length' volume list)" = 0 ]; }
until_true 10 gone

say "a node moves, and has all that it had"
whole() { # NODE
	nbd "$(node_uri "$1" data)" \
		"assert h.pread(4096, 0) == b'x' * 4096; assert h.pread(4096, 4096) == b'$1' * 2048
assert h.pread(12288, 3 << 29) == b'far' * 4096"
	nbd "$(node_uri "$1" data@s)" "assert h.pread(8192, 0) == b'$1' * 4096"
}
expect 0 'imported 1 disks and 2 volumes .*metadata.db is metadata.db.imported now: start quarryd' import n1
holds test ! -e "$dir/n1/data/metadata.db"
expect 0 'has been imported already' import n1
is "as JSON" "$(qn n1 --json cluster import-embedded --config "$dir/n1/quarry.conf" | jq -r .message | grep -c already)" 1
node_start n1
is "its disk" "$(jsonn n1 .state disk show n1-d1)" running
is "its volume" "$(jsonn n1 '.state + " " + .node' volume show data)" "serving n1"
expect 0 '' whole n1
expect 0 'elsewhere' qn n3 --json volume show data
node_stop n1
node_start n1
expect 0 '' whole n1
expect 0 '' qn n1 snapshot create data@t

say "the next one must rename what clashes, then it moves too"
node_stop n2
node_configure n2
expect 1 'volume data: the cluster has one of that name' import n2
alone n2
node_start n2
expect 0 '' qn n2 volume rename data data-n2
node_stop n2
node_configure n2
expect 0 'imported 1 disks and 2 volumes' import n2
node_start n2
nbd "$(node_uri n2 data-n2)" "assert h.pread(4096, 4096) == b'n2' * 2048"
for n in n1 n2 n3; do
	expect 0 '^healthy' qn $n status
	is "volumes that $n sees" "$(jsonn $n '[.volumes[].name] | join(" ")' volume list)" "clone-n1 clone-n2 data data-n2"
done

say "an import that is killed is repeated"
alone n4
node_start n4
for i in $(seq 60); do
	qn n4 volume create "many-$i" --size 1G >/dev/null
done
node_stop n4
node_configure n4
for ms in 050 080 110 150 200; do
	"$quarryd" --config "$dir/n4/quarry.conf" --import-embedded >"$dir/said" 2>&1 &
	importer=$!
	others+=("$importer")
	read -r -t "0.$ms" _ <> <(:) || true # the moment of the kill
	kill -KILL "$importer" 2>/dev/null || true
	wait "$importer" 2>/dev/null || true
done
import_again() { import n4; }
until_true 20 import_again
node_start n4
is "volumes that came" "$(jsonn n1 '[.volumes[].name | select(startswith("many-"))] | length' volume list)" 60
expect 0 '' qn n4 volume attach many-7 --nbd
cluster_passed
