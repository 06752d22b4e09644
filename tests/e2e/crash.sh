#!/bin/bash
# limit: 600
# crash.sh [ROUNDS]: kills the daemon at random moments under load on several volumes; every completed write must be there
# after the restart (P1), every other one whole or not at all (P5). Default: 12 rounds.
#
# SEED=N repeats the sequence of delays and requests; what the machine does between them differs. In one round of six
# the daemon is killed again while it recovers, in one of ten the crashed disks are checked before it starts.
. "$(dirname "$0")/lib.sh"
rounds=${1:-12}
seed=${SEED:-$((RANDOM * 32768 + RANDOM + 1))}
RANDOM=$((seed % 32768))
require_daemon
CACHE_MB=32 daemon_configure
daemon_start
disk_make d1 768M
disk_make d2 512M
disk_make d3 512M --reserve
volume_make small 64M
volume_make large 3G
volume_make huge 20T

mkfifo "$dir/to" "$dir/from"
"$BUILD/tests/e2e/loadgen" --seed "$seed" --window-mib 12 "$(uri small)" "$(uri large)" "$(uri huge)" \
	<"$dir/to" >"$dir/from" &
loadgen=$!
others+=("$loadgen")
exec 7>"$dir/to" 8<"$dir/from" # not for the daemon: see daemon_try_start

hear() { # WORD: the load generator's next line must begin with it
	local line=
	read -r -t 120 line <&8 || true
	n_checks=$((n_checks + 1))
	if [ "${line%% *}" != "$1" ]; then
		echo "round $round, seed $seed: expected \"$1\", heard: $line"
		keep_evidence
		fail "the load generator heard something else"
	fi
	heard=$line
}

# The disks as they are are worth more than the test's cleanliness.
keep_evidence() {
	if [ -n "${EVIDENCE:-}" ]; then
		[ -z "$daemon_pid" ] || daemon_kill
		mkdir -p "$EVIDENCE"
		cp --sparse=always -r "$dir/disks" "$dir/data" "$dir/log" "$EVIDENCE/"
		echo "kept in $EVIDENCE"
	fi
}

delay() { # up to this many milliseconds; the one place where time passes on purpose: the kill's moment
	local ms=$((RANDOM % $1))
	read -r -t "$((ms / 1000)).$(printf %03d $((ms % 1000)))" <> <(:) || true
}

round=0
hear ready
done_total=0 unknown_total=0
while [ $round -lt "$rounds" ]; do
	round=$((round + 1))
	echo load >&7
	hear loading
	delay 1200
	daemon_kill
	hear lost
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
	echo verify >&7
	hear verified
done
exec 7>&-
holds wait $loadgen
say "$rounds rounds, $done_total requests completed and found, $unknown_total in flight when killed and found whole or not at all"
holds test $unknown_total -gt 0
daemon_stop
for image in "$dir"/disks/*.img; do
	expect 0 '' q disk check "$image"
done
passed
