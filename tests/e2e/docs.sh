#!/bin/bash
# limit: 300
# docs.sh [PAGE ...]: every link in the documentation leads to something, and every block of commands in the README, the
# tutorial, the how-tos and the reference of the API does what the page says.
#
# Each page has a daemon of its own, except where it starts one itself. /run/quarry, /var/lib/quarry, /etc/quarry and the ports
# of the documentation become a folder and ports of the test. See docs.py for what a page may say about its blocks, and
# docs_links.py for what a link must keep; docs_events.py holds the reference of events and problems against the source.
. "$(dirname "$0")/lib.sh"
require nbdinfo nbdcopy nbdsh qemu-img fio jq curl certtool etcd
require_daemon
[ $# -gt 0 ] || set -- "$top"/README.md "$top"/docs/tutorial.md "$top"/docs/reference/api.md "$top"/docs/how-to/*.md
export PATH=$BUILD:$PATH
trap - ERR

free_port() { /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

run_page() { # PAGE
	local root=$dir/page status=0
	rm -rf "$root"
	mkdir -p "$root"/{run,lib,etc,home,tmp}
	cat >"$root/etc/quarry.conf" <<-END
		node    = { name = "n1"; data_dir = "$root/lib"; cache_mb = 64; };
		control = { socket = "$root/run/control.sock"; };
		nbd     = { socket = "$root/run/nbd.sock"; };
		vhost   = { dir = "$root/run/vhost"; };
	END
	"$here/docs.py" "$1" "/run/quarry=$root/run" "/var/lib/quarry=$root/lib" "/etc/quarry=$root/etc" "/tmp/=$root/tmp/" \
		"10809=$nbd_port" "9750=$api_port" \
		"2379=$etcd_port" "2380=$etcd_peer_port" >"$dir/script" || fail "$1 has no commands to run"
	if ! grep -q '^quarryd .*&$' "$dir/script"; then
		cp "$root/etc/quarry.conf" "$dir/quarry.conf"
		daemon_start
		export QUARRY_SOCKET=$root/run/control.sock
	else
		unset QUARRY_SOCKET
	fi
	(cd "$root/home" && HOME=$root/home bash "$dir/script" </dev/null) >"$dir/said" 2>&1 || status=$?
	n_checks=$((n_checks + $(grep -c "^-- " "$dir/said")))
	if [ $status != 0 ]; then
		tail -n 40 "$dir/said" | sed 's/^/    /'
		tail -n 5 "$root"/tmp/*/log 2>/dev/null || true
		fail "${1#"$top"/}: the last block shown ended with status $status"
	fi
	[ -z "$daemon_pid" ] || daemon_stop
	echo "-- ${1#"$top"/}: $(grep -c "^-- " "$dir/said") blocks"
}

expect 0 '^[1-9][0-9]* links' "$here/docs_links.py" "$top"
say "$(cat "$dir/said")"
expect 0 '^[1-9][0-9]* events' "$here/docs_events.py" "$top"
nbd_port=$(free_port)
api_port=$(free_port)
etcd_port=$(free_port)
etcd_peer_port=$(free_port)
for page in "$@"; do
	run_page "$page"
done
passed
