#!/bin/bash
# limit: 420
# cluster-partition.sh: three nodes and an etcd of three members, each in a network namespace of its own, cut off from one another
# in every direction: the old head answers nothing after another could have taken its volume; what is not cut goes on.
. "$(dirname "$0")/lib.sh"
. "$here/cluster-lib.sh"
. "$here/net-lib.sh"
require nbdsh
require_daemon
net_begin
export LEASE_MS=3000
etcds=(10.77.0.11 10.77.0.12 10.77.0.13)
etcd_endpoints='"http://10.77.0.11:2379", "http://10.77.0.12:2379", "http://10.77.0.13:2379"'
etcd_cluster=e1=http://10.77.0.11:2380,e2=http://10.77.0.12:2380,e3=http://10.77.0.13:2380
declare -A etcd_pids=()

member_run() { # K
	local at=http://10.77.0.1$1
	inside "e$1" etcd --name "e$1" --data-dir "$dir/e$1" --listen-client-urls "$at:2379" --advertise-client-urls "$at:2379" \
		--listen-peer-urls "$at:2380" --initial-advertise-peer-urls "$at:2380" --initial-cluster "$etcd_cluster" \
		--unsafe-no-fsync >>"$dir/e$1.log" 2>&1 </dev/null 7>&- 8<&- &
	etcd_pids[$1]=$!
	others+=("$!")
}
member_serves() { inside "e$1" curl -fs --max-time 2 -d '{"key":"Lw=="}' "http://10.77.0.1$1:2379/v3/kv/range"; }
member_leads() { # K
	inside "e$1" curl -fs --max-time 2 -d '{}' "http://10.77.0.1$1:2379/v3/maintenance/status" |
		jq -e '.leader == .header.member_id' >/dev/null
}
leader_find() {
	local k
	for k in 1 2 3; do
		! member_leads $k || { leader=$k && return 0; }
	done
	return 1
}

for k in 1 2 3; do
	host_add e$k 10.77.0.1$k
	member_run $k
done
until_true 30 member_serves 1
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$dir/key")
for k in 1 2 3; do
	host_add n$k 10.77.0.$k
	node_space[n$k]=$(space_of n$k)
	node_configure n$k "peer = { listen = \"10.77.0.$k:9751\"; key_file = \"$dir/key\"; };"
	node_start n$k
	qn n$k disk add "$dir/n$k/disks/a.img" --size 512M >/dev/null
done
sees() { [ "$(jsonn "$1" "$2" "${@:4}")" = "$3" ]; }
all_answer() {
	local n of
	for n in n1 n2 n3; do
		for of in n1 n2 n3; do
			[ $n = $of ] || answers $n $of true || return 1
		done
	done
}
until_true 15 all_answer

# ---- clients that write down when each of their requests was answered ----

now_ns() { /usr/bin/python3 -c 'import time; print(time.monotonic_ns())'; }
client='
import sys, time
out = open(sys.argv[1], "w", buffering=1)
has_data = sys.argv[2] == "data"
n = 0
while h.aio_is_ready():
    n += 1
    try:
        if has_data:
            h.pwrite(bytes([n % 251 + 1]) * 4096, n % 64 * 4096, nbd.CMD_FLAG_FUA)
        elif n % 2:
            h.zero(4096, n % 64 * 4096, nbd.CMD_FLAG_FUA)
        else:
            h.pread(4096, n % 64 * 4096)
        out.write("done %d\n" % time.monotonic_ns())
    except nbd.Error as e:
        out.write("failed %d %s\n" % (time.monotonic_ns(), e))
out.write("ended %d\n" % time.monotonic_ns())
'
client_begin() { # NODE VOLUME data|holes: its record is $dir/VOLUME.done
	nbdsh -u "$(node_uri "$1" "$2")" -c "import sys; sys.argv = ['client', '$dir/$2.done', '$3']" -c "$client" 7>&- 8<&- &
	others+=("$!")
	until_true 10 grep -q 'done' "$dir/$2.done"
}
done_after() { awk -v t="$2" '$1 == "done" && $2 + 0 > t + 0' "$dir/$1.done" | wc -l; } # VOLUME TIME
goes_on() { [ "$(done_after "$1" "$2")" -gt 20 ]; }                                     # VOLUME TIME
both_go_on() { # SECONDS: w1 and w2 answer from now on, each within so many
	local v moment
	for v in w1 w2; do
		moment=$(now_ns)
		until_true "$1" goes_on $v "$moment"
	done
}
pause_ms() { # VOLUME SINCE: the longest time without an answer since then
	awk -v t="$2" '$1 == "done" && $2 + 0 > t + 0 { if (last && $2 - last > most) most = $2 - last; last = $2 }
		END { printf "%d\n", most / 1000000 }' "$dir/$1.done"
}
failures() { grep -c failed "$dir/$1.done" || true; } # VOLUME

# A head that has been cut off or stands still: another node takes its volume, and it has not one answer more.
taken_over() { # VOLUME: of n1, by n2, when n1 is lost
	local began
	until_true 20 state_is n2 n1 lost
	began=$(now_ns)
	expect 0 '^nbd' qn n2 volume attach "$1" --nbd --takeover
	is "answers of n1 since n2 began to take $1" "$(done_after "$1" "$began")" 0
	nbd "$(node_uri n2 "$1")" 'h.zero(4096, 0, nbd.CMD_FLAG_FUA)'
}
let_go() { # VOLUME: n1 is back
	local began
	began=$(now_ns)
	until_true 30 state_is n2 n1 running
	until_true 30 grep -q ended "$dir/$1.done"
	is "answers of n1 after it was back" "$(done_after "$1" "$began")" 0
	until_true 20 sees n1 '.node' n2 volume show "$1"
	expect 0 '' qn n2 volume detach "$1"
}
bare_begin() { # VOLUME: one without data, which another node may take, on n1 with a client
	qn n1 volume create "$1" --size 1G >/dev/null
	qn n1 volume attach "$1" --nbd >/dev/null
	until_true 10 qn n2 volume show "$1"
	client_begin n1 "$1" holes
}

for how in link deaf mute; do
	say "the head is cut off from etcd: $how"
	bare_begin cut-$how
	case $how in
	link) link_down n1 ;;
	*) $how n1 "${etcds[@]}" ;;
	esac
	taken_over cut-$how
	case $how in
	link) link_up n1 ;;
	*) heal n1 ;;
	esac
	let_go cut-$how
done

say "the head stands still for longer than its lease"
bare_begin still
node_pause n1
taken_over still
node_continue n1
let_go still
until_true 20 all_answer

say "a node of which nobody hears, and which hears all: only its own volumes wait"
for k in 1 2; do
	qn n$k volume create w$k --size 64M >/dev/null
	qn n$k volume attach w$k --nbd >/dev/null
	client_begin n$k w$k data
done
began=$(now_ns)
mute n1 10.77.0.2 10.77.0.3 "${etcds[@]}"
until_true 20 state_is n2 n1 lost
until_true 20 sees n1 .state failing volume show w1
moment=$(now_ns)
until_true 10 goes_on w2 "$moment"
is "answers of n1 since it is lost" "$(done_after w1 "$moment")" 0
holds [ "$(pause_ms w2 "$began")" -lt 2500 ]
heal n1
moment=$(now_ns)
until_true 30 goes_on w1 "$moment"
is "requests that failed meanwhile" "$(failures w1)" 0
until_true 20 all_answer

say "two nodes that do not reach each other, and etcd reaches both: both serve"
began=$(now_ns)
mute n1 10.77.0.2
deaf n1 10.77.0.2
until_true 20 answers n1 n2 false
until_true 20 answers n2 n1 false
both_go_on 10
is "the state of n1 for n2" "$(node_state n2 n1)" running
expect 1 'volume w1 is attached on node n1: run this there .it cannot be reached' qn n2 volume resize w1 128M
is "what n2 can tell of w1" "$(jsonn n2 '.state + " " + .node' volume show w1)" "elsewhere n1"
expect 0 '' qn n3 volume resize w1 128M
heal n1
until_true 20 all_answer
expect 0 '' qn n2 volume resize w1 256M
for v in w1 w2; do
	holds [ "$(pause_ms $v "$began")" -lt 2500 ]
done

say "etcd gets another leader"
until_true 10 leader_find
began=$(now_ns)
kill -KILL "${etcd_pids[$leader]}"
wait "${etcd_pids[$leader]}" 2>/dev/null || true
old=$leader
until_true 20 leader_find
until_true 20 qn n3 volume create after-leader --size 1G
both_go_on 20
member_run "$old"
until_true 30 member_serves "$old"
say "pauses: $(pause_ms w1 "$began") and $(pause_ms w2 "$began") ms"

say "a member of etcd is cut off from the others, and reaches all nodes"
until_true 10 leader_find
began=$(now_ns)
others_of=()
for k in 1 2 3; do
	[ $k = "$leader" ] || others_of+=("10.77.0.1$k")
done
mute "e$leader" "${others_of[@]}"
deaf "e$leader" "${others_of[@]}"
until_true 30 qn n3 volume create after-split --size 1G
both_go_on 20
heal "e$leader"
until_true 30 member_serves "$leader"
say "pauses: $(pause_ms w1 "$began") and $(pause_ms w2 "$began") ms"

say "etcd has no majority, and has one again"
link_down e1
link_down e2
until_true 20 sees n1 .state failing volume show w1
until_true 20 sees n2 .state failing volume show w2
link_up e1
link_up e2
both_go_on 30
for v in w1 w2; do
	is "requests of $v that failed in all this" "$(failures $v)" 0
done
for n in n1 n2 n3; do
	until_true 20 qn $n status
done
for k in 1 2; do
	expect 0 '' qn n3 volume detach w$k
	until_true 10 grep -q ended "$dir/w$k.done"
done
cluster_passed
