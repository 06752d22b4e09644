#!/bin/bash
# limit: 240
# cluster-forward.sh: every command on every node: what another node must do is sent there, and its answer comes back.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
etcd_start
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$dir/key")
for n in n1 n2 n3; do
	node_configure $n "peer = { listen = \"127.0.0.1:$(port_free)\"; key_file = \"$dir/key\"; };"
	node_start $n
	qn $n disk add "$dir/$n/disks/a.img" --size 512M >/dev/null
done
sees() { [ "$(jsonn "$1" "$2" "${@:4}")" = "$3" ]; }
api() { curl -s --unix-socket "$dir/$1/control.sock" "http://localhost/v1/$2" "${@:3}"; }
for n in n1 n2 n3; do
	for of in n1 n2 n3; do
		[ $n = $of ] || until_true 15 answers $n $of true
	done
done

say "a volume of n1, looked after on n2 and n3"
qn n1 volume create v1 --size 1G >/dev/null
qn n1 volume attach v1 --nbd >/dev/null
nbd "$(node_uri n1 v1)" 'h.pwrite(b"1" * 65536, 0); h.flush()'
until_true 10 qn n2 volume show v1
until_true 10 qn n3 volume show v1
until_true 10 sees n2 '.state + " " + .node' "serving n1" volume show v1
is "what it takes, seen on n3" "$(jsonn n3 .allocated_bytes volume show v1)" "$(jsonn n1 .allocated_bytes volume show v1)"
is "its writes, seen on n3" "$(jsonn n3 .counters.writes volume show v1)" "$(jsonn n1 .counters.writes volume show v1)"
expect 0 '^nbd.*n1/nbd.sock' qn n2 volume attach v1 --nbd
expect 1 'volume v1 is attached on node n1: run this there' qn n2 volume attach v1 --vhost-user
expect 0 '' qn n2 volume resize v1 2G
is "its size on n1" "$(jsonn n1 .size_bytes volume show v1)" 2147483648
is "its size on n3" "$(jsonn n3 .size_bytes volume show v1)" 2147483648
expect 0 '' qn n3 snapshot create v1@s
expect 0 '' qn n3 snapshot create v1@s # it may be repeated (P6)
is "what the snapshot holds, seen on n2" "$(jsonn n2 .data_bytes snapshot show v1@s)" 65536
nbd "$(node_uri n1 v1)" 'h.pwrite(b"2" * 8192, 1 << 20); h.flush()'
is "what has changed since, asked on n3" \
	"$(api n3 'volumes/v1/changes?since=s' | jq -c '[.extents[] | [.offset_bytes, .length_bytes]]')" '[[1048576,8192]]'
expect 1 'is attached, and what its clients see' qn n2 snapshot rollback v1@s
expect 0 '' qn n2 volume detach v1
until_true 10 sees n1 .state detached volume show v1
expect 0 '' qn n2 snapshot rollback v1@s
expect 0 '^nbd.*n1/nbd.sock' qn n3 volume attach v1 --nbd
nbd "$(node_uri n1 v1)" 'assert h.pread(8192, 1 << 20) == bytes(8192)'
expect 0 '' qn n2 volume clone v1@s c1
until_true 10 sees n3 '.node' n1 volume show c1
expect 0 '' qn n3 volume rename v1 v2
until_true 10 qn n2 volume show v2
holds grep -Eq 'for node n3: POST /v1/(volumes/v1/)?snapshots' "$dir/n1/log"

say "refusals come back as they are"
expect 1 'volume v2 has 1 snapshots: delete them first' qn n2 volume delete v2
is "the code of one" "$(api n2 volumes/v2 -X DELETE | jq -r .error.code)" in-use
is "and its status" "$(api n2 volumes/v2 -X DELETE -o "$dir/answer" -w '%{http_code}')" 409
expect 1 '' qn n3 snapshot delete v2@none

say "disks"
is "the state of n2's disk on n1" "$(jsonn n1 .state disk show n2-d1)" running
is "what is free there" "$(jsonn n1 .free_bytes disk show n2-d1)" "$(jsonn n2 .free_bytes disk show n2-d1)"
disk_of() { echo ".disks[] | select(.name == \"$1\")"; }
free_of() { jsonn "$1" "$(disk_of "$2") | .free_bytes" disk list; } # NODE DISK
tells_room() { # NODE DISK OWNER: of a disk that nobody writes to now
	[ "$(free_of "$1" "$2")" = "$(free_of "$3" "$2")" ] &&
		[ "$(jsonn "$1" "$(disk_of "$2") | .sampled_at != null" disk list)" = true ]
}
until_true 25 tells_room n3 n1-d1 n1
until_true 25 tells_room n3 n2-d1 n2
is "when n3 was told how full its own disk is" "$(jsonn n3 "$(disk_of n3-d1) | .sampled_at" disk list)" null
is "the pool's size on n3" "$(jsonn n3 .size_bytes pool show default)" \
	"$(jsonn n3 '[.disks[].size_bytes] | add' disk list)"
is "what is free in it" "$(jsonn n3 .free_bytes pool show default)" "$(jsonn n3 '[.disks[].free_bytes] | add' disk list)"
expect 0 '' qn n1 disk scrub n2-d1
until_true 20 sees n3 .scrub.running false disk show n2-d1
until_true 10 sees n3 '.scrub.ended_at != null' true disk show n2-d1
expect 1 'n1-d1' qn n2 disk remove n1-d1 # it holds data
expect 0 '' qn n1 disk remove n3-d1
until_true 10 sees n2 '[.disks[].name] | join(" ")' "n1-d1 n2-d1" disk list

say "what is sent on is sent on no further: two volumes of two nodes are not one consistent point"
qn n2 volume create w --size 1G >/dev/null
qn n2 volume attach w --nbd >/dev/null
nbd "$(node_uri n2 w)" 'h.pwrite(b"w" * 4096, 0); h.flush()'
until_true 10 qn n3 volume show w
expect 1 'is attached on node n[12]: run this there' qn n3 snapshot create v2@p w@p

say "a node that stands still, and one that is gone"
node_pause n1
began=$(date +%s)
is "what n2 can tell of it" "$(jsonn n2 '.state + " " + .node' volume show v2)" "elsewhere n1"
expect 1 'node n1.*(connection|cannot be reached)' qn n2 volume resize v2 3G
holds [ $(($(date +%s) - began)) -lt 10 ]
node_continue n1
until_true 15 answers n2 n1 true
until_true 15 sees n2 .state serving volume show v2
expect 0 '' qn n2 volume resize v2 3G
node_kill n1
until_true 15 state_is n2 n1 lost
expect 1 'attached on node n1, which is not alive' qn n2 volume resize v2 4G
until_true 5 sees n2 "$(disk_of n1-d1) | .state + \" \" + (.free_bytes | tostring)" "unreachable null" disk list
node_start n1
until_true 15 answers n2 n1 true
expect 0 '' qn n2 volume resize v2 4G

say "many at once, and a stop meanwhile"
for i in $(seq 40); do
	qn n2 snapshot create "v2@m$i" >/dev/null 2>&1 &
	racers[i]=$!
done
done_ones=0
for pid in "${racers[@]}"; do
	wait "$pid" && done_ones=$((done_ones + 1))
done
holds [ "$done_ones" -ge 16 ]
is "snapshots that were made" "$(jsonn n1 '[.snapshots[] | select(.name | startswith("m"))] | length' snapshot list v2)" \
	"$done_ones"
(while qn n2 volume show v2 >/dev/null 2>&1; do :; done) &
asker=$!
node_stop n1
node_stop n2
wait $asker
cluster_passed
