#!/bin/bash
# limit: 300
# vhost-games.sh [ROUNDS]: clients that lie (messages, rings, requests), that die at any point, and that are disturbed in
# every way a VMM may; another volume goes on all the while, with split rings and then with packed ones, and nothing is left
# behind in the daemon.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vhost-lib.sh"
rounds=${1:-2}
seed=${SEED:-$((RANDOM + 1))}
daemon_begin
disk_make d1 2G
require_vhost
vhost_make liar 64M --queues 2

honest_begin() { # NAME OPTIONS ...
	local name=$1
	shift
	vhost_make "$name" 64M --queues 2
	load_begin vhost-loadgen --seed $seed --queues 2 --disturb --window-mib 4 "$@" "$(vhost_socket "$name")"
	load_tell load
	load_hear loading
}
honest_end() {
	say "the other volume did not notice"
	load_verify
	load_end
}

play() {
	local ring
	for ring in "" --packed; do
		# shellcheck disable=SC2086 # an option or none
		expect 0 ' lies$' "$BUILD/vhost-games" $ring --seed $((seed + $1)) --rounds "$rounds" "$(vhost_socket liar)"
	done
}

# A client that has gone keeps its place until what it had in flight is done, which a slow disk decides.
has_a_place() {
	[ "$(json '.attachments[0].clients' volume show liar)" -lt 4 ]
}
die_at_any_point() { # N: clients with requests in flight, killed
	local i pid
	for i in $(seq "$1"); do
		until_true 60 has_a_place
		"$BUILD/vhost-probe" --queues 2 --seed "$i" "$(vhost_socket liar)" hold >"$dir/held" 2>&1 &
		pid=$!
		[ $((i % 2)) = 0 ] || until_true 10 grep -q ready "$dir/held"
		delay 30
		kill -KILL $pid
		wait $pid 2>/dev/null || true
	done
}

say "the first time: pools fill, caches grow (seed $seed)"
honest_begin split
play 0
die_at_any_point 20
honest_end
honest_begin packed --packed
read -r fds_before mib_before <<<"$(pressure_now)"
say "again: $fds_before file descriptors, $mib_before MiB"
play 1
die_at_any_point 60
until_true 60 has_a_place
holds "$BUILD/vhost-probe" "$(vhost_socket liar)" requests
read -r fds_after mib_after <<<"$(pressure_now)"
say "after that: $fds_after file descriptors, $mib_after MiB"
holds test "$fds_after" -le $((fds_before + 2))
holds test "$mib_after" -le $((mib_before + 24))

honest_end
expect 0 '' q status
passed
