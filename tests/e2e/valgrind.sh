#!/bin/bash
# limit: 300
# valgrind.sh: start, work, stop: nothing is lost and nothing is touched that is not ours. Valgrind does not see what the kernel
# writes through a ring, so it is not asked about values that were never set.
. "$(dirname "$0")/lib.sh"
require valgrind nbdcopy
[ -z "${QUARRY_SAN:-}" ] || skip "valgrind and sanitizers do not go together"
require_daemon
daemon_configure
start() {
	WRAP="valgrind -q --leak-check=full --show-leak-kinds=definite,indirect,possible --errors-for-leak-kinds=definite,indirect,possible
	--undef-value-errors=no --error-exitcode=99 --num-callers=30 --log-file=$dir/valgrind.%p" START_SECONDS=120 daemon_start
}
start
for n in 1 2; do
	say "cycle $n"
	[ "$n" = 2 ] || {
		disk_make d1 256M
		volume_make v1 64M
		volume_make v2 2G
	}
	head -c 16M /dev/urandom >"$dir/image"
	nbdcopy --flush "$dir/image" "$(uri v1)"
	nbdcopy "$(uri v1)" null:
	nbd "$(uri v2)" 'h.pwrite(b"x" * 512, 512); h.zero(1 << 20, 0); h.trim(2 << 30, 0); h.flush(); h.pread(4096, 1 << 30)'
	volume_make "load$n" 64M
	printf 'load 500\nverify\n' | "$BUILD/tests/e2e/loadgen" --window-mib 2 --depth 8 "$(uri "load$n")" >"$dir/said"
	is "the load generator" "$(tail -n 1 "$dir/said" | cut -d" " -f1)" verified
	expect 0 '' q volume resize v2 3G
	expect 0 '' q status
	expect 0 '' q disk scrub n1-d1 --wait
	expect 1 '' q volume show nothing
	expect 0 'quarry_' curl -s --unix-socket "$dir/control.sock" http://localhost/metrics
	q volume create gone --size 1G >/dev/null
	expect 0 '' q volume delete gone
	status=0
	kill -TERM "$daemon_pid"
	wait "$daemon_pid" || status=$?
	daemon_pid=
	cat "$dir"/valgrind.* 2>/dev/null || true
	is "exit status under valgrind" "$status" 0
	[ "$n" = 2 ] || start
done
passed
