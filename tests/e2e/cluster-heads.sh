#!/bin/bash
# limit: 420
# cluster-heads.sh [SECONDS]: heads and leases, on three nodes with one etcd, under load: etcd stands still, dies and comes back;
# nodes stand still, and die. No completed write is lost, what waited goes on by itself, and no two nodes ever serve a volume.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
require nbdsh
require_daemon
etcd_start
for n in n1 n2 n3; do
	node_configure $n
	node_start $n
	qn $n disk add "$dir/$n/disks/a.img" --size 768M >/dev/null
done
qn n1 volume create v1 --size 64M >/dev/null
qn n1 volume attach v1 --nbd >/dev/null
qn n2 volume create v2 --size 3G >/dev/null
qn n2 volume attach v2 --nbd >/dev/null

load_begin tests/e2e/loadgen --seed $((RANDOM + 1)) --depth 4 --window-mib 12 "$(node_uri n1 v1)" "$(node_uri n2 v2)"

load_on() { # until its connections break: see `load_hear lost`
	load_tell load
	load_hear loading
}
done_of() { jsonn "$1" '.counters | .writes + .reads' volume show "$2"; }
stalled() { [ "$(jsonn "$1" .state volume show "$2")" = failing ]; }
moves() { # NODE VOLUME: requests are being completed
	local before
	before=$(done_of "$1" "$2")
	until_true 20 has_more "$1" "$2" "$before"
}
has_more() { [ "$(done_of "$1" "$2")" -gt "$3" ]; }
pass_s() { read -r -t "$1" <> <(:) || true; } # the one place where time passes on purpose: nothing may happen in it

say "etcd stands still"
load_on
moves n1 v1
kill -STOP "$etcd_pid"
until_true 15 stalled n1 v1
until_true 15 stalled n2 v2
expect 1 'this node has no lease' qn n1 status
expect 0 'why: .*this node has no lease' qn n2 volume show v2
before=$(done_of n1 v1)
pass_s 1
is "requests that n1 answered without a lease" "$(($(done_of n1 v1) - before))" 0
kill -CONT "$etcd_pid"
until_true 20 serves n1 v1
until_true 20 serves n2 v2
moves n1 v1
moves n2 v2
for n in n1 n2; do
	holds node_event $n lease-lost
	holds node_event $n lease-returned
done
for n in n1 n2 n3; do
	until_true 10 qn $n status
done

say "etcd dies and comes back"
etcd_kill
until_true 15 stalled n1 v1
expect 0 '' qn n1 volume list
expect 1 'metadata store|no lease' qn n3 volume create later --size 1G
etcd_run
until_true 20 serves n1 v1
moves n1 v1
moves n2 v2
until_true 20 qn n3 volume create later --size 1G

say "a node stands still, for longer than its lease"
node_pause n2
until_true 15 state_is n1 n2 lost
expect 1 'attached on node n2, which is not alive' qn n1 volume attach v2 --nbd
expect 1 'on disk n2-d1 of node n2' qn n1 volume attach v2 --nbd --takeover
moves n1 v1
node_continue n2
until_true 15 state_is n1 n2 running
until_true 15 serves n2 v2
moves n2 v2

say "nodes die, one after the other, and their volumes are back with them"
node_kill n1
node_kill n2
load_hear lost
node_start n1
node_start n2
until_true 10 serves n1 v1
until_true 10 serves n2 v2
load_tell verify
load_hear verified
say "$heard"

say "etcd and a node die at once"
load_on
etcd_kill
node_kill n1
node_launch n1
until_true 20 grep -q 'waiting until one does' "$dir/n1/log"
etcd_run
until_true 20 serves n1 v1
until_true 20 serves n2 v2
node_kill n2
load_hear lost
node_start n2
until_true 10 serves n2 v2
load_tell verify
load_hear verified
say "$heard"

say "a node that stands still while another takes its volume: not one answer more"
qn n1 volume create bare --size 1G >/dev/null
qn n1 volume attach bare --nbd >/dev/null
nbd_reader='
import sys, time
out = open(sys.argv[1], "w", buffering=1)
h.pread(4096, 0)
out.write("begun\n")
try:
    while True:
        data = h.pread(4096, 0)
        out.write("%d %d\n" % (time.monotonic_ns(), data[0]))
except nbd.Error as e:
    out.write("ended %d\n" % time.monotonic_ns())
'
nbdsh -u "$(node_uri n1 bare)" -c "import sys; sys.argv = ['reader', '$dir/reads']" -c "$nbd_reader" 7>&- 8<&- &
others+=("$!")
until_true 10 grep -q begun "$dir/reads"
node_pause n1
until_true 15 state_is n2 n1 lost
expect 1 'not alive' qn n2 volume attach bare --nbd
expect 0 '^nbd' qn n2 volume attach bare --nbd --takeover
nbd "$(node_uri n2 bare)" 'h.pwrite(b"2" * 4096, 0, nbd.CMD_FLAG_FUA)'
written=$(/usr/bin/python3 -c 'import time; print(time.monotonic_ns())')
node_continue n1
until_true 30 grep -q ended "$dir/reads"
is "answers of the old head after the new one wrote" \
	"$(awk -v t="$written" '$1 + 0 > t + 0' "$dir/reads" | grep -vc ended || true)" 0
until_true 20 state_is n2 n1 running
holds node_event n1 volume-fenced
is "where it is for the old head" "$(jsonn n1 '.state + " " + .node' volume show bare)" "elsewhere n2"
nbd "$(node_uri n2 bare)" 'assert h.pread(4096, 0) == b"2" * 4096'
expect 1 'attached on node n2: run this there' qn n1 volume attach bare --nbd
expect 0 '' qn n2 volume detach bare

say "a node is stopped while there is no etcd"
kill -STOP "$etcd_pid"
until_true 15 stalled n1 v1
node_stop n1
kill -CONT "$etcd_pid"
node_start n1
until_true 10 serves n1 v1
load_end
cluster_passed
