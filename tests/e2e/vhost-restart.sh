#!/bin/bash
# limit: 600
# vhost-restart.sh [ROUNDS]: the daemon ends (SIGTERM or SIGKILL) at random moments under a verifying load and is started
# again; the client reconnects with its requests in flight, as QEMU does with reconnect=1, and a guest would notice a
# pause: no error, nothing lost, nothing done twice. Default: 20 rounds over two volumes, split and packed.
#
# DELAY_MS=N puts the disk on a file system whose writes take so long (nbdfuse over nbdkit's delay filter), so that
# requests are in flight for milliseconds. SEED=N repeats the moments.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vhost-lib.sh"
rounds=${1:-20}
seed=${SEED:-$((RANDOM * 32768 + RANDOM + 1))}
RANDOM=$((seed % 32768))
require_daemon
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

n_owed=0 n=0
run() { # ROUNDS OPTIONS ...
	local round=0 last=$1
	shift
	say "$* (seed $seed)"
	load_begin --seed "$seed" --window-mib 4 --queues 2 "$@" "$(vhost_socket v1)" "$(vhost_socket v2)"
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
	done
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
