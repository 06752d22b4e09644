# cluster-lib.sh: several daemons on this machine with one etcd, all on loopback; read after lib.sh.
#
#   etcd_start                 an etcd; $etcd_url, $etcd_pid.   etcd_kill, etcd_run: it dies, and is started with its data
#   node_configure NAME [TEXT] writes $dir/NAME/quarry.conf
#   node_start NAME            starts it and waits until it serves
#   node_try_start NAME        the same; $node_said tells how it went, $dir/NAME/log why
#   nodes_start NAME ...       configures and starts nodes that reach each other's disks, slow ones too
#   cluster_begin NAME ...     an etcd, and such nodes with a disk of 1 GiB each, which volumes of all of them use;
#   cluster_passed             the nodes that are there stop, and the test has passed
#   node_stop NAME             SIGTERM, must exit 0
#   node_kill, node_pause, node_continue NAME       SIGKILL, SIGSTOP, SIGCONT
#   qn NAME ARGUMENTS ...      the command, to that node;   jsonn NAME FILTER ARGUMENTS ...   a value of its JSON
#   node_uri NAME VOLUME       the NBD URI of a volume there
#   node_event NAME CODE       has it told this event?
#   state_is NAME OF STATE     does NAME say this of the node OF?   node_state NAME OF   what it says
#   answers NAME OF WHAT       does it say this of the node OF's peer server: true, false, null?
#   head_of NAME VOLUME        whose it is, as that node says;   serves NAME VOLUME   does it serve it itself?
#   client_begin NODE ...      a client that writes v, checks what it reads, and looks for it at these nodes; client_end;
#   pause_of_client            sets $pause, its longest since the last time, in ms
#   node_add_disk NAME         a disk of 1 GiB
#   places NAME N              does a volume of that node get N copies? A disk of another node does when it has been told of
# shellcheck shell=bash
require etcd jq curl
declare -A node_pid=()
declare -A node_space=() # the network namespace of a node, of a test that has some

port_free() {
	/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# ---- etcd ----

etcd_serves() {
	curl -fs --max-time 2 -d '{"key":"Lw=="}' "$etcd_url/v3/kv/range"
}

etcd_run() {
	etcd --data-dir "$dir/etcd" --listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" \
		--listen-peer-urls "$etcd_peer_url" --initial-advertise-peer-urls "$etcd_peer_url" \
		--initial-cluster "default=$etcd_peer_url" --unsafe-no-fsync >>"$dir/etcd.log" 2>&1 </dev/null 7>&- 8<&- &
	etcd_pid=$!
	others+=("$etcd_pid")
	until_true 30 etcd_serves
}

etcd_start() {
	etcd_url=http://127.0.0.1:$(port_free)
	etcd_peer_url=http://127.0.0.1:$(port_free)
	etcd_run
}

etcd_kill() {
	kill -KILL "$etcd_pid"
	wait "$etcd_pid" 2>/dev/null || true
}

# ---- nodes ----

node_configure() { # NAME [LINES ...]
	local at=$dir/$1 endpoints=${etcd_endpoints:-}
	[ -n "$endpoints" ] || endpoints="\"$etcd_url\""
	mkdir -p "$at/data" "$at/disks"
	cat >"$at/quarry.conf" <<-END
		node     = { name = "$1"; data_dir = "$at/data"; cache_mb = ${CACHE_MB:-32}; labels = { zone = "z-$1"; }; };
		control  = { socket = "$at/control.sock"; };
		nbd      = { socket = "$at/nbd.sock"; };
		vhost    = { dir = "$at/vhost"; };
		metadata = { backend = "etcd"; endpoints = [ $endpoints ]; };
		cluster  = { lease_ms = ${LEASE_MS:-2000}; replica_timeout_ms = ${REPLICA_MS:-300}; rebuild_after_s = ${REBUILD_S:-600}; };
		log      = { level = "debug"; };
	END
	shift
	[ $# = 0 ] || printf '%s\n' "$@" >>"$at/quarry.conf"
}

node_launch() { # NAME: without waiting
	local at=$dir/$1 inside=()
	[ -z "${node_space[$1]:-}" ] || inside=(ip netns exec "${node_space[$1]}")
	NOTIFY_SOCKET=$at/notify "${inside[@]}" "$quarryd" --config "$at/quarry.conf" 2>>"$at/log" </dev/null 7>&- 8<&- &
	node_pid[$1]=$!
	others+=("$!")
	echo "$!" >"$at/pid"
}

node_try_start() {
	local at=$dir/$1 from
	rm -f "$at/pid"
	exec {from}< <(exec "$here/ready.py" "$at/notify" "$at/pid" "${START_SECONDS:-60}")
	read -r _ <&"$from" # "bound"
	node_launch "$1"
	node_said=late
	read -r node_said <&"$from" || true
	exec {from}<&-
	[ "$node_said" != died ] || unset "node_pid[$1]"
}

node_start() {
	node_try_start "$1"
	[ "$node_said" = ready ] || node_failed "$1" "node $1 $node_said instead of getting ready"
}

nodes_start() { # NAME ...
	local name
	for name; do
		REPLICA_MS=700 node_configure "$name" "peer = { listen = \"127.0.0.1:$(port_free)\"; insecure = true; };"
		node_start "$name"
	done
}

node_add_disk() { # NAME
	qn "$1" disk add "$dir/$1/disks/a.img" --size 1G >/dev/null
}

cluster_begin() { # NAME ...
	local name
	etcd_start
	nodes_start "$@"
	for name; do
		node_add_disk "$name"
	done
	for name; do
		until_true 30 places "$name" $#
	done
}

node_failed() { # NAME MESSAGE
	tail -n 15 "$dir/$1/log" | sed 's/^/    /'
	fail "$2"
}

node_stop() {
	local status=0
	kill -TERM "${node_pid[$1]}"
	wait "${node_pid[$1]}" || status=$?
	n_checks=$((n_checks + 1))
	[ $status = 0 ] || node_failed "$1" "node $1 ended with status $status after SIGTERM"
	unset "node_pid[$1]"
}

node_kill() {
	kill -KILL "${node_pid[$1]}"
	wait "${node_pid[$1]}" 2>/dev/null || true
	unset "node_pid[$1]"
}

node_pause() { kill -STOP "${node_pid[$1]}"; }
node_continue() { kill -CONT "${node_pid[$1]}"; }

qn() { # NAME ARGUMENTS ...
	QUARRY_SOCKET=$dir/$1/control.sock "$BUILD/quarry" "${@:2}"
}

jsonn() { # NAME FILTER ARGUMENTS ...
	qn "$1" --json "${@:3}" | jq -r "$2"
}

node_uri() {
	echo "nbd+unix:///$2?socket=$dir/$1/nbd.sock"
}

node_event() {
	qn "$1" --json events | jq -e --arg code "$2" '.events[] | select(.code == $code)' >/dev/null
}

node_state() { # NAME OF: what NAME says of the node OF
	jsonn "$1" ".nodes[] | select(.name == \"$2\") | .state" node list
}

state_is() { # NAME OF STATE
	[ "$(node_state "$1" "$2")" = "$3" ]
}

answers() { # NAME OF WHAT
	[ "$(jsonn "$1" ".nodes[] | select(.name == \"$2\") | .peer.answers" node list)" = "$3" ]
}

head_of() { # NAME VOLUME
	jsonn "$1" .node volume show "$2"
}

serves() { # NAME VOLUME
	[ "$(jsonn "$1" .state volume show "$2")" = serving ]
}

cluster_passed() {
	local name
	for name in "${!node_pid[@]}"; do
		node_stop "$name"
	done
	passed
}

places() { # NAME N
	local n
	qn "$1" volume create probe --size 64M --replicas "$2" >/dev/null || return 1
	qn "$1" volume attach probe --nbd >/dev/null
	nbd "$(node_uri "$1" probe)" 'h.pwrite(b"x" * 4096, 0)'
	n=$(jsonn "$1" '[.copies[] | select(.state == "current")] | length' volume show probe)
	qn "$1" volume detach probe >/dev/null
	qn "$1" volume delete probe >/dev/null
	[ "$n" = "$2" ]
}

# ---- a client that looks for its volume, v, at every node: roaming_client.py ----

client_begin() { # NODE ...
	local words="'client', '$dir'" n
	for n; do
		words+=", '$n'"
	done
	nbdsh -c "import sys; sys.argv = [$words]" -c "$(cat "$here/roaming_client.py")" 7>&- 8<&- &
	client_pid=$!
	others+=("$client_pid")
	until_true 10 grep -q begun "$dir/client"
}

pause_of_client() { # sets $pause: its longest since the last time, in ms
	: >"$dir/reset"
	until_true 30 test ! -e "$dir/reset"
	pause=$(grep pause "$dir/client" | tail -n 1 | cut -d' ' -f2)
}

client_end() { # all that it wrote is there
	pause_of_client
	: >"$dir/enough"
	holds wait "$client_pid"
	say "$(tail -n 1 "$dir/client")"
}
