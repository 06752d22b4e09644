#!/bin/bash
# limit: 300
# cluster-nodes.sh: three nodes on one etcd: who is there, what all of them see, what each may change, whose names are whose;
# and how a node starts when etcd is not there.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon

say "etcd that is not there yet"
etcd_url=http://127.0.0.1:$(port_free)
etcd_peer_url=http://127.0.0.1:$(port_free)
node_configure n1
node_launch n1
told() { grep -q "$1" "$dir/n1/log"; }
until_true 20 told "metadata.endpoints: no endpoint of etcd answers: $etcd_url"
until_true 5 told 'waiting until one does; start etcd, or correct metadata.endpoints'
holds kill -0 "${node_pid[n1]}"
node_stop n1
expect 0 'nothing is wrong' "$quarryd" --config "$dir/n1/quarry.conf" --check-config
node_launch n1
etcd_run
until_true 20 qn n1 status
node_stop n1

say "a node that has an embedded store"
touch "$dir/n1/data/metadata.db"
node_try_start n1
is "a node with an embedded store of its own" "$node_said" died
holds told 'metadata.db is this node.s embedded store.*import-embedded'
rm "$dir/n1/data/metadata.db"
node_start n1
for n in n2 n3; do
	node_configure $n
	node_start $n
done

say "who is there"
for n in n1 n2 n3; do
	is "nodes that $n knows" "$(jsonn $n '[.nodes[].name] | join(" ")' node list)" "n1 n2 n3"
	is "of these alive" "$(jsonn $n '[.nodes[] | select(.state == "running")] | length' node list)" 3
	is "labels of n2, seen by $n" "$(jsonn $n .labels.zone node show n2)" z-n2
	expect 0 '^healthy' qn $n status
done
expect 0 '^n3 +running +0 +0 +[0-9.]+ +20.*zone=z-n3$' qn n1 node list
expect 1 'there is no node' qn n1 node show n9
node_configure n2x
sed -i 's/name = "n2x"/name = "n2"/' "$dir/n2x/quarry.conf"
node_try_start n2x
is "a second node n2" "$node_said" died
holds grep -q 'node.name: "n2" is the name of a node that is alive' "$dir/n2x/log"
expect 0 '' qn n2 node list
node_configure n3y
cp "$dir/n3/quarry.conf" "$dir/n3y/quarry.conf"
sed -i "s/name = \"n3\"/name = \"n5\"/" "$dir/n3y/quarry.conf"
sed -i "s|$dir/n3/control|$dir/n3y/control|; s|$dir/n3/nbd|$dir/n3y/nbd|" "$dir/n3y/quarry.conf"
node_try_start n3y
is "a second daemon in one folder" "$node_said" died
holds grep -q 'in use by another quarryd' "$dir/n3y/log"

node_configure n4
node_start n4
node_stop n4
sed -i 's/name = "n4"/name = "n6"/' "$dir/n4/quarry.conf"
node_try_start n4
is "a node that has got another name" "$node_said" died
holds grep -q 'is the folder of node "n4": write node.name = "n4" again' "$dir/n4/log"

say "disks, pools and volumes of all"
for n in n1 n2 n3; do
	expect 0 '' qn $n disk add "$dir/$n/disks/a.img" --size 512M
	expect 0 '' qn $n disk add "$dir/$n/disks/a.img" --size 512M
done
sees() { [ "$(jsonn "$1" "$2" "${@:4}")" = "$3" ]; }
for n in n1 n2 n3; do
	until_true 10 sees $n '[.disks[] | .node + ":" + .name] | join(" ")' "n1:n1-d1 n2:n2-d1 n3:n3-d1" disk list
	is "own disk of $n" "$(jsonn $n .state disk show $n-d1)" running
done
is "a disk of another" "$(jsonn n1 '.state + " " + (.size_bytes | tostring)' disk show n2-d1)" "elsewhere 536870912"
expect 1 'disk n2-d1 is on node n2: run this there' qn n1 disk remove n2-d1
expect 1 'disk n2-d1 is on node n2: run this there' qn n1 disk scrub n2-d1
expect 0 '' qn n1 pool create fast
until_true 10 qn n3 pool show fast
expect 0 '' qn n3 pool delete fast
until_true 10 sees n1 '[.pools[].name] | join(" ")' default pool list
expect 0 '' qn n2 volume create v1 --size 1G
until_true 10 qn n1 volume show v1
expect 1 'exists with other properties' qn n1 volume create v1 --size 2G
expect 0 '' qn n1 volume create v1 --size 1G
expect 0 '^nbd' qn n1 volume attach v1 --nbd
nbd "$(node_uri n1 v1)" 'h.pwrite(b"1" * 65536, 0); h.flush()'
for n in n2 n3; do
	until_true 10 sees $n '.state + " " + .node' "elsewhere n1" volume show v1
	expect 0 '^v1 +default +1G +- +1 +on n1 nbd$' qn $n volume list
	expect 1 'volume v1 is attached on node n1: run this there' qn $n volume attach v1 --nbd
	expect 1 'attached on node n1, which is alive' qn $n volume attach v1 --nbd --takeover
	expect 1 'volume v1 is attached on node n1: run this there' qn $n volume detach v1
	expect 1 'volume v1 is attached on node n1: run this there' qn $n volume resize v1 2G
	expect 1 'volume v1 is attached on node n1: run this there' qn $n volume rename v1 v2
	expect 1 'volume v1 is attached on node n1: run this there' qn $n snapshot create v1@s
	expect 1 'attached on node n1' qn $n volume delete v1
	expect 0 '^healthy' qn $n status
done
api() { curl -s --unix-socket "$dir/n2/control.sock" "http://localhost/v1/$1" "${@:2}"; }
is "code of a refusal" "$(api volumes/v1 -X PATCH -d '{"size_bytes": 2147483648}' | jq -r .error.code)" elsewhere
expect 0 '' qn n1 snapshot create v1@s
until_true 10 qn n2 snapshot show v1@s
expect 0 '' qn n1 volume detach v1
until_true 10 sees n2 .state detached volume show v1
expect 1 'the data of volume v1 are on disks of node n1' qn n2 volume attach v1 --nbd
expect 1 'the data of volume v1 are on disks of node n1' qn n2 volume clone v1@s c1
expect 0 '' qn n2 volume rename v1 v2
until_true 10 qn n1 volume show v2
expect 0 '' qn n3 volume delete v2 --snapshots
for n in n1 n2 n3; do
	until_true 20 sees $n '.volumes | length' 0 volume list
done
until_true 10 grep -q 'volume-deleted' "$dir/n1/log"

say "one name, many nodes at once"
for i in $(seq 8); do
	racers=()
	for n in n1 n2 n3; do
		qn $n volume create "race$i" --size "${n#n}G" >"$dir/race.$n" 2>&1 &
		racers+=($!)
	done
	won=0
	for pid in "${racers[@]}"; do
		wait "$pid" && won=$((won + 1))
	done
	is "nodes that could create race$i" $won 1
done
for n in n1 n2 n3; do
	until_true 10 sees $n '[.volumes[].name] | unique | length' 8 volume list
	is "volumes that $n sees" "$(jsonn $n '.volumes | length' volume list)" 8
done

say "nodes that stop, and one that dies"
node_stop n2
until_true 10 state_is n1 n2 stopped
expect 0 '^healthy' qn n1 status
node_start n2
until_true 10 state_is n1 n2 running
expect 0 '' qn n2 volume attach race1 --nbd
until_true 10 sees n1 .node n2 volume show race1
node_kill n2
until_true 15 state_is n1 n2 lost
until_true 5 state_is n3 n2 lost
is "a disk of a node that died" "$(jsonn n1 .state disk show n2-d1)" unreachable
expect 1 'node n2: it does not renew its lease' qn n1 status
expect 1 'volume race1 +it is attached on node n2, which is not alive' qn n1 status
holds node_event n3 node-lost
expect 1 'not alive' qn n1 volume attach race1 --nbd
expect 0 '^nbd' qn n1 volume attach race1 --nbd --takeover
node_start n2
until_true 10 state_is n1 n2 running
until_true 10 sees n2 '.state + " " + .node' "elsewhere n1" volume show race1
until_true 5 qn n1 status
node_kill n2
until_true 15 state_is n1 n2 lost
expect 0 '' qn n3 disk remove n2-d1 --force
until_true 10 sees n1 '[.disks[].name] | join(" ")' "n1-d1 n3-d1" disk list
until_true 5 qn n1 status
node_start n2
is "the disk that was removed" "$(jsonn n2 '[.disks[].name] | join(" ")' disk list)" "n1-d1 n3-d1"

say "a restart within the lease does not wait for it"
node_kill n3
began=$(date +%s%N)
node_start n3
holds [ $((($(date +%s%N) - began) / 1000000)) -lt 1900 ]
cluster_passed
