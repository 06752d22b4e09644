#!/bin/bash
# limit: 600
# vhost-restart.sh [ROUNDS]: the daemon ends (SIGTERM or SIGKILL) at random moments under a verifying load and is started
# again; the client reconnects with its requests in flight, as QEMU does with reconnect=1, and a guest would notice a
# pause: no error, nothing lost, nothing done twice. Default: 20 rounds over two volumes, split and packed. Beside them
# a snapshot is read all the time, over a socket of its own.
#
# DELAY_MS=N puts the disk on a file system whose writes take so long (nbdfuse over nbdkit's delay filter), so that
# requests are in flight for milliseconds. SEED=N repeats the moments.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vhost-lib.sh"
rounds=${1:-20}
seed_choose
require_daemon
require nbdcopy
CACHE_MB=32 daemon_configure

disk=$dir/disks/d1.img
if [ -n "${DELAY_MS:-}" ]; then
	require nbdkit nbdfuse
	[ -w /dev/fuse ] || skip "/dev/fuse may not be used"
	mkdir "$dir/slow"
	nbdkit -f -U "$dir/slow.sock" --filter=delay memory 1G wdelay="${DELAY_MS}ms" rdelay="${DELAY_MS}ms" &
	others+=($!)
	until_true 10 test -S "$dir/slow.sock"
	nbdfuse "$dir/slow" "nbd+unix:///?socket=$dir/slow.sock" &
	others+=($!)
	mounts+=("$dir/slow")
	until_true 10 test -e "$dir/slow/nbd"
	disk=$dir/slow/nbd
fi
daemon_start
q disk add "$disk" --size 1G >/dev/null
require_vhost
vhost_make v1 128M --queues 2
vhost_make v2 2G --queues 2

# what the snapshot holds is known by way of NBD
vhost_make v3 32M
holds "$BUILD/vhost-probe" --seed "$seed" "$(vhost_socket v3)" requests
q snapshot create v3@s >/dev/null
q volume detach v3 >/dev/null
q volume attach v3@s --nbd >/dev/null
nbdcopy "$(uri v3@s)" "$dir/image"
q volume attach v3@s --vhost-user --queues 2 >/dev/null
reader_begin() { # OPTIONS ...
	rm -f "$dir/reading" "$dir/reader"
	mkfifo "$dir/reading"
	"$BUILD/vhost-probe" --queues 2 --seed "$seed" "$@" "$(vhost_socket v3@s)" reread "$dir/image" \
		<"$dir/reading" >"$dir/reader" 2>&1 &
	reader=$!
	others+=("$reader")
	exec 9>"$dir/reading"
	until_true 10 grep -q ready "$dir/reader"
}
reader_has_resumed() { # TIMES
	[ "$(grep -c resumed "$dir/reader")" -ge "$1" ]
}
reader_end() {
	echo stop >&9 # a daemon started meanwhile has the pipe open too: closing it says nothing
	exec 9>&-
	wait "$reader" || fail "the reader of the snapshot: $(tail -n 3 "$dir/reader")"
	expect 0 'checks$' cat "$dir/reader"
}

n_owed=0 n=0
run() { # ROUNDS OPTIONS ...
	local round=0 last=$1
	shift
	say "$*"
	load_begin vhost-loadgen --seed "$seed" --window-mib 4 --queues 2 "$@" "$(vhost_socket v1)" "$(vhost_socket v2)"
	reader_begin "$@"
	load_tell load
	load_hear loading
	while [ $round -lt "$last" ]; do
		round=$((round + 1)) n=$((n + 1))
		delay 600
		if [ $((RANDOM % 3)) = 0 ]; then
			daemon_stop
		else
			daemon_kill
		fi
		load_hear lost
		daemon_start
		load_hear resumed
		n_owed=$((n_owed + ${heard#resumed }))
		until_true 60 reader_has_resumed $round
	done
	reader_end
	load_verify
	load_end
	# the next one starts from zeros again
	for v in v1 v2; do
		q volume detach $v >/dev/null
		q volume delete $v >/dev/null
	done
	vhost_make v1 128M --queues 2
	vhost_make v2 2G --queues 2
}
run $(((rounds + 1) / 2))
run $((rounds / 2)) --packed
say "$n rounds, $n_owed requests in flight when the daemon ended, and completed by the next one"
holds test "$n_owed" -gt 0
daemon_stop
[ -n "${DELAY_MS:-}" ] || expect 0 '' q disk check "$disk"
passed
