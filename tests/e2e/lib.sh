# lib.sh: what every end-to-end test does: a daemon in a folder of its own, the command that talks to it, and cleaning up.
#
#   . tests/e2e/lib.sh            at the top of a script, which is run from anywhere
#   require nbdinfo fio           skips the test (77) when one of these is not installed
#   daemon_begin [TEXT ...]       writes $dir/quarry.conf (with the lines of TEXT) and starts the daemon
#   daemon_stop / daemon_kill     SIGTERM, must exit 0 / SIGKILL;   daemon_start starts it again
#   q ARGUMENTS ...               the command
#   disk_make NAME SIZE           a file of that size in the pool;  volume_make NAME SIZE creates and attaches
#   uri NAME                      its NBD URI
#   expect STATUS PATTERN COMMAND ...   the command must end so, and its output match the extended regular expression
#   is WHAT GOT WANTED            two texts must be the same
#   until_true SECONDS COMMAND ...      waits for a condition
#   seed_choose                   $seed and what RANDOM gives from here on: SEED=N repeats them
#   delay MS                      lets up to so many milliseconds pass: the one place where time passes on purpose
#
# A script ends well by reaching `passed`; anything that fails ends it with the place and the daemon's last lines.
# shellcheck shell=bash
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$top/tests/e2e
BUILD=${BUILD:-build}
case $BUILD in
/*) ;;
*) BUILD=$top/$BUILD ;;
esac
export PATH=/usr/bin:/usr/sbin:/bin:/sbin:$PATH
quarryd=$BUILD/quarryd
dir=$(mktemp -d "${TMPDIR:-/tmp}/quarry-test.XXXXXX")
export QUARRY_SOCKET=$dir/control.sock
daemon_pid=
others=() # processes that end with the test
mounts=() # and what it mounted
loops=()  # and its loop devices: gone when nobody has them open any more
spaces=() # and its network namespaces
n_checks=0

skip() {
	echo "$*"
	exit 77
}

require() {
	local tool
	for tool in "$@"; do
		command -v "$tool" >/dev/null || skip "$tool is not installed (packaging/debian-packages.txt)"
	done
}

require_daemon() {
	[ -x "$quarryd" ] && [ -x "$BUILD/quarry" ] || skip "quarryd or quarry is not built"
}

at_end() {
	local status=$? pid m
	trap - EXIT ERR
	set +e
	for m in "${loops[@]}"; do
		losetup -d "$m" 2>/dev/null
	done
	for m in "${mounts[@]}"; do
		umount -l "$m" 2>/dev/null
	done
	for pid in "${others[@]}" $daemon_pid; do
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	for m in "${spaces[@]}"; do
		ip netns del "$m" 2>/dev/null
	done
	if [ $status != 0 ] && [ $status != 77 ] && [ -s "$dir/log" ]; then
		echo "---- the daemon's last lines:"
		if grep -q 'ERROR: .*Sanitizer\|runtime error:' "$dir/log"; then
			grep -m 1 -A 45 'ERROR: .*Sanitizer\|runtime error:' "$dir/log"
		else
			tail -n 30 "$dir/log"
		fi
	fi
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $dir"
	else
		rm -rf "$dir"
	fi
	exit $status
}
trap at_end EXIT
trap 'echo "FAILED at ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"' ERR
set -E

say() {
	echo "-- $*"
}

fail() {
	echo "FAILED at ${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}: $*"
	exit 1
}

passed() {
	[ -z "$daemon_pid" ] || daemon_stop
	[ "$n_checks" -gt 0 ] || fail "nothing was checked"
	echo "ok: $n_checks checks"
}

is() {
	n_checks=$((n_checks + 1))
	[ "$2" = "$3" ] || fail "$1 is \"$2\", expected \"$3\" (line ${BASH_LINENO[0]})"
}

# A condition of bash's [[ ... ]] or any other command, counted.
holds() {
	n_checks=$((n_checks + 1))
	"$@" || fail "does not hold: $* (line ${BASH_LINENO[0]})"
}

expect() {
	local want=$1 pattern=$2 status=0
	shift 2
	n_checks=$((n_checks + 1))
	"$@" >"$dir/said" 2>&1 </dev/null || status=$?
	if [ "$status" != "$want" ] || { [ -n "$pattern" ] && ! grep -qE -- "$pattern" "$dir/said"; }; then
		sed 's/^/    /' "$dir/said"
		fail "expected exit status $want and \"$pattern\", got $status: $* (line ${BASH_LINENO[0]})"
	fi
}

until_true() {
	local limit=$1 end
	end=$(($(date +%s%N) / 1000000 + limit * 1000))
	shift
	while ! "$@" >/dev/null 2>&1; do
		[ $(($(date +%s%N) / 1000000)) -lt $end ] || fail "not within $limit s: $*"
		sleep 0.05 # poll: with a limit
	done
}

# ---- chance ----

seed_choose() {
	seed=${SEED:-$((RANDOM * 32768 + RANDOM + 1))}
	RANDOM=$((seed % 32768))
	say "seed $seed"
}

delay() {
	local ms=$((RANDOM % $1))
	read -r -t "$((ms / 1000)).$(printf %03d $((ms % 1000)))" <> <(:) || true
}

# ---- the daemon ----

daemon_configure() {
	cat >"$dir/quarry.conf" <<-END
		node     = { name = "n1"; data_dir = "$dir/data"; cache_mb = ${CACHE_MB:-64}; };
		control  = { socket = "$dir/control.sock"; };
		nbd      = { socket = "$dir/nbd.sock"; ${NBD_CONF:-} };
		vhost    = { dir = "$dir/vhost"; ${VHOST_CONF:-} };
		log      = { level = "debug"; };
	END
	printf '%s\n' "$@" >>"$dir/quarry.conf"
	mkdir -p "$dir/data" "$dir/disks"
}

# Starts it, without the descriptors 7 and 8 (a script's own pipes), and waits until it says that it serves; fails the test otherwise. WRAP may hold a command to run it under.
daemon_start() {
	daemon_try_start
	[ "$daemon_said" = ready ] || fail "quarryd $daemon_said instead of getting ready (line ${BASH_LINENO[0]})"
}

daemon_try_start() {
	local from
	rm -f "$dir/pid"
	exec {from}< <(exec "$here/ready.py" "$dir/notify" "$dir/pid" "${START_SECONDS:-60}")
	read -r _ <&"$from" # "bound"
	# shellcheck disable=SC2086 # WRAP is a command with its words
	NOTIFY_SOCKET=$dir/notify ${WRAP:-} "$quarryd" --config "$dir/quarry.conf" \
		2>>"$dir/log" </dev/null {from}<&- 7>&- 8<&- &
	daemon_pid=$!
	echo $daemon_pid >"$dir/pid"
	daemon_said=late
	read -r daemon_said <&"$from" || true
	exec {from}<&-
}

daemon_begin() {
	require_daemon
	daemon_configure "$@"
	daemon_start
}

daemon_stop() {
	local status=0
	kill -TERM "$daemon_pid"
	wait "$daemon_pid" || status=$?
	daemon_pid=
	n_checks=$((n_checks + 1))
	[ $status = 0 ] || fail "quarryd ended with status $status after SIGTERM (line ${BASH_LINENO[0]})"
}

daemon_kill() {
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null || true
	daemon_pid=
}

daemon_restart() {
	daemon_stop
	daemon_start
}

# MiB of memory that the daemon holds now, and has held at most.
daemon_memory_mib() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$daemon_pid/status"; }
daemon_memory_peak_mib() { awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$daemon_pid/status"; }

q() {
	"$BUILD/quarry" "$@"
}

disk_make() { # NAME SIZE [OPTIONS ...]
	local name=$1 size=$2
	shift 2
	q disk add "$dir/disks/$name.img" --size "$size" "$@" >/dev/null
}

volume_make() { # NAME SIZE [OPTIONS ...]
	local name=$1 size=$2
	shift 2
	q volume create "$name" --size "$size" "$@" >/dev/null
	q volume attach "$name" --nbd >/dev/null
}

uri() {
	echo "nbd+unix:///$1?socket=$dir/nbd.sock"
}

# One value of a command's JSON: json '.size_bytes' volume show v1
json() {
	local filter=$1
	shift
	q --json "$@" | jq -r "$filter"
}

# nbdsh without a shell: python statements with `h` connected to a URI.
nbd() { # URI STATEMENTS
	nbdsh -u "$1" -c "$2"
}

# ---- a load generator: it hears and speaks line by line ----

load_begin() { # PROGRAM WORDS ...: under $BUILD; ready when this returns
	rm -f "$dir/to" "$dir/from"
	mkfifo "$dir/to" "$dir/from"
	"$BUILD/$1" "${@:2}" <"$dir/to" >"$dir/from" &
	loadgen=$!
	others+=("$loadgen")
	exec 7>"$dir/to" 8<"$dir/from" # not for the daemon: see daemon_try_start
	load_hear ready
}

load_tell() { echo "$*" >&7; }

load_hear() { # WORD [SECONDS]: its next line must begin so; the line is $heard
	heard=
	read -r -t "${2:-120}" heard <&8 || true
	n_checks=$((n_checks + 1))
	[ "${heard%% *}" = "$1" ] ||
		fail "${round:+round $round: }the load generator should have said \"$1\" and said: $heard (line ${BASH_LINENO[0]})"
}

load_end() {
	exec 7>&- 8<&-
	holds wait "$loadgen"
}
