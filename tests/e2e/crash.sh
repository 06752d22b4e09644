#!/bin/bash
# limit: 600
# crash.sh [ROUNDS]: kills the daemon at random moments under load on several volumes; every completed write must be there
# after the restart (P1), every other one whole or not at all (P5). Default: 12 rounds.
#
# SEED=N repeats the sequence of delays and requests; what the machine does between them differs. In one round of six
# the daemon is killed again while it recovers, in one of ten the crashed disks are checked before it starts.
. "$(dirname "$0")/lib.sh"
rounds=${1:-12}
seed_choose
require_daemon
CACHE_MB=32 daemon_configure
daemon_start
disk_make d1 768M
disk_make d2 512M
disk_make d3 512M --reserve
volume_make small 64M
volume_make large 3G
volume_make huge 20T

load_begin tests/e2e/loadgen --seed "$seed" --window-mib 12 "$(uri small)" "$(uri large)" "$(uri huge)"
round=0
done_total=0 unknown_total=0
while [ $round -lt "$rounds" ]; do
	round=$((round + 1))
	load_tell load
	load_hear loading
	delay 1200
	daemon_kill
	load_hear lost
	read -r _ n_done _ n_unknown _ <<<"$heard"
	done_total=$((done_total + n_done)) unknown_total=$((unknown_total + n_unknown))
	if [ $((RANDOM % 10)) = 0 ]; then
		for image in "$dir"/disks/*.img; do
			expect 0 '' q disk check "$image"
		done
	fi
	if [ $((RANDOM % 6)) = 0 ]; then
		rm -f "$dir/pid"
		daemon_try_start & # killed before it says that it is ready, mostly
		starter=$!
		until_true 10 test -s "$dir/pid"
		delay 150
		kill -KILL "$(cat "$dir/pid")" 2>/dev/null || true
		wait $starter || true
	fi
	daemon_start
	load_tell verify
	load_hear verified
done
load_end
say "$rounds rounds, $done_total requests completed and found, $unknown_total in flight when killed and found whole or not at all"
holds test $unknown_total -gt 0
daemon_stop
for image in "$dir"/disks/*.img; do
	expect 0 '' q disk check "$image"
done
passed
