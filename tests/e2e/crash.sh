#!/bin/bash
# limit: 600
# crash.sh [ROUNDS]: kills the daemon at random moments under load on several volumes; every completed write must be there
# after the restart (P1), every other one whole or not at all (P5). Default: 12 rounds.
#
# Snapshots of two of them are taken and deleted meanwhile: what was answered holds after the restart, one that was cut off
# is of both volumes or of none, and what a snapshot holds stays the same whatever is killed later.
#
# SEED=N repeats the sequence of delays and requests; what the machine does between them differs. In one round of six
# the daemon is killed again while it recovers, in one of ten the crashed disks are checked before it starts.
. "$(dirname "$0")/lib.sh"
rounds=${1:-12}
seed_choose
require jq nbdcopy
require_daemon
CACHE_MB=32 daemon_configure
daemon_start
disk_make d1 768M
disk_make d2 512M
disk_make d3 512M --reserve
volume_make small 64M
volume_make large 3G
volume_make huge 20T

# Names of snapshots, each file in order: those that were taken, that a deletion was asked for, that it was answered for.
touch "$dir/taken" "$dir/asked" "$dir/deleted"
: >"$dir/sums"
history_run() { # takes snapshots, and deletes the oldest, until the daemon does not answer
	local n=0 name oldest
	while printf -v name 'r%05d-%03d' "$round" $((n += 1)) && q snapshot create "small@$name" "large@$name"; do
		echo "$name" >>"$dir/taken"
		[ "$(comm -23 "$dir/taken" "$dir/asked" | wc -l)" -gt 3 ] || continue
		oldest=$(comm -23 "$dir/taken" "$dir/asked" | head -n 1)
		echo "$oldest" >>"$dir/asked"
		q snapshot delete "small@$oldest" && q snapshot delete "large@$oldest" && echo "$oldest" >>"$dir/deleted" || return 0
	done
}
names() { # VOLUME
	q --json snapshot list "$1" | jq -r '.snapshots[] | select(.state == "ok") | .name' | sort
}
sum() { # NAME: of what small@NAME holds
	q volume attach "small@$1" --nbd >/dev/null
	nbdcopy "$(uri "small@$1")" - | sha256sum
	q volume detach "small@$1" >/dev/null
}
history_verify() {
	local newest known cut
	names small >"$dir/small"
	names large >"$dir/large"
	is "snapshots that are deleted and there" "$(sort -u "$dir/small" "$dir/large" | comm -12 - "$dir/deleted")" ""
	comm -23 "$dir/small" "$dir/asked" >"$dir/there"
	holds cmp "$dir/there" <(comm -23 "$dir/large" "$dir/asked")
	is "snapshots that were taken and are not there" "$(comm -23 "$dir/taken" "$dir/asked" | comm -23 - "$dir/there")" ""
	sort -u -o "$dir/taken" "$dir/taken" "$dir/there"
	# A deletion that was cut off is asked for again: what nobody deletes would fill the pool in the end.
	for cut in $(comm -23 "$dir/asked" "$dir/deleted"); do
		expect 0 '' q snapshot delete "small@$cut"
		expect 0 '' q snapshot delete "large@$cut"
		echo "$cut" >>"$dir/deleted"
	done
	while read -r newest known; do
		! grep -qxF "$newest" "$dir/there" || is "what small@$newest holds" "$(sum "$newest")" "$known"
	done < <(tail -n 1 "$dir/sums")
	newest=$(tail -n 1 "$dir/there")
	[ -z "$newest" ] || echo "$newest $(sum "$newest")" >>"$dir/sums"
}

load_begin tests/e2e/loadgen --seed "$seed" --window-mib 12 "$(uri small)" "$(uri large)" "$(uri huge)"
round=0
done_total=0 unknown_total=0
while [ $round -lt "$rounds" ]; do
	round=$((round + 1))
	load_tell load
	load_hear loading
	history_run >/dev/null 2>&1 &
	history=$!
	delay 1200
	daemon_kill
	wait $history
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
	history_verify
done
load_end
say "$rounds rounds, $done_total requests completed and found, $unknown_total in flight when killed and found whole or not at all"
holds test $unknown_total -gt 0
say "$(wc -l <"$dir/taken") snapshots taken, $(wc -l <"$dir/deleted") deleted"
holds test "$(wc -l <"$dir/deleted")" -gt 0
daemon_stop
for image in "$dir"/disks/*.img; do
	expect 0 '' q disk check "$image"
done
passed
