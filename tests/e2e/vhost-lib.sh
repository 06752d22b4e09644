# vhost-lib.sh: what the tests of vhost-user attachments share; read after lib.sh.
#
#   require_vhost                 starts nothing: skips the test (77) when this quarryd has no vhost-user frontend
#   vhost_make NAME SIZE [OPTIONS ...]   creates a volume and attaches it;  vhost_socket NAME is where
#   load_verify                   the load that lib.sh has begun stops, and what is on the volumes is held against it
#   pressure_now                  "FDS MIB" of the daemon
#   guest_attend NAME COMMAND ...        runs the test of a guest on the volume of that name, and does to the daemon what it asks
#                                 for by a line in $dir/ask: stop or kill, both of which start it again, or resize; then it
#                                 says so in $dir/answer.   guest_asks WHAT is the command for that
# shellcheck shell=bash
# shellcheck disable=SC2154 # dir, daemon_pid: lib.sh's

vhost_socket() {
	echo "$dir/vhost/$1.sock"
}

vhost_make() {
	local name=$1 size=$2
	shift 2
	q volume create "$name" --size "$size" >/dev/null
	q volume attach "$name" --vhost-user "$@" >/dev/null
	until_true 10 test -S "$(vhost_socket "$name")"
}

# After daemon_begin and a disk: a volume of its own tells whether there is such a frontend.
require_vhost() {
	local said
	q volume create vhost-there --size 16M >/dev/null
	said=$(q volume attach vhost-there --vhost-user 2>&1) || skip "this quarryd attaches no volume over vhost-user: $said"
	q volume detach vhost-there >/dev/null
	q volume delete vhost-there >/dev/null 2>&1 || true
}

load_verify() {
	load_tell stop
	load_hear "done"
	load_tell verify
	load_hear verified
}

# What a client that has just ended held may take a moment to go: the least of several looks.
pressure_now() {
	local least=999999 n _
	for _ in $(seq 20); do
		n=$(find "/proc/$daemon_pid/fd" -mindepth 1 | wc -l)
		[ "$n" -ge $least ] || least=$n
		read -r -t 0.05 <> <(:) || true # poll
	done
	echo "$least $(daemon_memory_mib)"
}

guest_asks() {
	echo "echo $1 >$dir/ask; read -r _ <$dir/answer"
}

guest_attend() {
	local name=$1 what pid
	shift
	[ -p "$dir/ask" ] || mkfifo -m 666 "$dir/ask" "$dir/answer"
	exec 9<>"$dir/ask"
	"$@" 9>&- &
	pid=$!
	others+=("$pid")
	while kill -0 $pid 2>/dev/null; do
		read -r -t 0.5 what <&9 || continue
		case $what in
		kill | stop)
			"daemon_$what"
			daemon_start
			;;
		resize) q volume resize "$name" 576M >/dev/null ;;
		esac
		echo "$what" >"$dir/answer"
	done
	exec 9>&-
	holds wait $pid
}
