#!/bin/bash
# limit: 240
# alone
# history-delete.sh: a large snapshot is deleted while a client writes: its latency stays bounded, and the space comes
# back. How the deletion stays behind clients is held exactly in tests/unit/test_disk_drop.c.
. "$(dirname "$0")/lib.sh"
require jq fio
require_daemon
daemon_begin
disk_make d1 3G

write_all() { # SEED: every block of v, in an order that scatters them
	fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bs=4k --iodepth=64 --size=300M --randseed="$1" --randrepeat=1 \
		>/dev/null
}
client() { # SECONDS: one write at a time; prints count, p99 and max in microseconds
	fio --output-format=json --name=c --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bs=4k --iodepth=1 --size=300M \
		--time_based=1 --runtime="$1" --norandommap=1 --percentile_list=99 |
		sed -n '/^{/,$p' | jq -r '.jobs[0].write | [.total_ios, .clat_ns.percentile["99.000000"] / 1000, .clat_ns.max / 1000] | map(floor) | @tsv'
}
reclaiming() { q --json volume show v | jq .reclaiming_bytes; }

volume_make v 300M
write_all 1
q snapshot create v@old >/dev/null
write_all 2
read -r n0 p0 m0 < <(client 3)
client 5 >"$dir/beside" &
client=$!
others+=("$client")
is_writing() { [ "$(q --json volume show v | jq .counters.writes)" -gt "$1" ]; }
until_true 10 is_writing "$(($(q --json volume show v | jq .counters.writes) + 50))"
q snapshot delete v@old >/dev/null
wait "$client"
read -r n1 p1 m1 <"$dir/beside"
say "alone: $n0 writes, p99 $p0 us, max $m0 us; while it is deleted: $n1 writes, p99 $p1 us, max $m1 us"
is_reclaimed() { [ "$(reclaiming)" = 0 ]; }
until_true 60 is_reclaimed
# a stall of the whole deletion would be seconds; the machine itself is not quiet
holds test "$p1" -lt $((10 * p0 + 20000))
holds test "$n1" -gt $((n0 / 4))
daemon_stop
passed
