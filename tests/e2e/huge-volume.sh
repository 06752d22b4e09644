#!/bin/bash
# limit: 500
# alone
# huge-volume.sh: a volume of 64 TiB on a disk of 10 GiB: there at once, memory bounded under random writes over all of it
# (P8), and a start of less than 5 seconds after a kill with much in the journal.
#
# SECONDS_OF_LOAD=N loads for longer.
. "$(dirname "$0")/lib.sh"
require fio nbdinfo
cache=64
CACHE_MB=$cache daemon_begin
disk_make d1 10G
start=$(date +%s%N)
volume_make v1 64T
ms=$((($(date +%s%N) - start) / 1000000))
say "created and attached in $ms ms"
holds test $ms -lt 2000
is "size" "$(nbdinfo --size "$(uri v1)")" $((64 << 40))
nbd "$(uri v1)" '
h.pwrite(b"e" * 4096, (64 << 40) - 4096)
assert h.pread(4096, (64 << 40) - 4096) == b"e" * 4096
assert h.pread(4096, 32 << 40) == b"\0" * 4096'

say "random writes over the whole range"
expect 0 'err= 0' fio --name=spread --ioengine=nbd --uri="$(uri v1)" --rw=randwrite --bs=4k --iodepth=64 --norandommap=1 \
	--random_generator=tausworthe64 --randrepeat=0 --time_based=1 --runtime="${SECONDS_OF_LOAD:-25}" --size=64T
grep -E 'IOPS' "$dir/said"
peak=$(daemon_memory_peak_mib)
echo "$peak MiB of memory at most, $cache MiB of cache configured"
holds test "$peak" -le $((cache + 64))

killed_and_back() { # WHAT
	local start ms
	say "a start after a kill: $1"
	daemon_kill
	wait "$load" || true
	start=$(date +%s%N)
	daemon_start
	ms=$((($(date +%s%N) - start) / 1000000))
	echo "ready after $ms ms: $(grep 'recovered to' "$dir/log" | tail -n 1 | sed 's/.*and //')"
	holds test $ms -lt 5000
	holds test "$(daemon_memory_peak_mib)" -le $((cache + 64))
	nbd "$(uri v1)" 'assert h.pread(4096, (64 << 40) - 4096) == b"e" * 4096'
}
load() { # OPTIONS ...
	fio --name=load --ioengine=nbd --uri="$(uri v1)" --bs=4k --norandommap=1 --randrepeat=0 \
		--random_generator=tausworthe64 --time_based=1 --runtime=240 "$@" >"$dir/load.log" 2>&1 &
	load=$!
	others+=("$load")
}
journal_used() { [ "$(json '.disks[0].journal.used_bytes' disk list)" -gt "$1" ]; }
checkpoints() { json '.disks[0].checkpoints' disk list; }
passed_checkpoint() { [ "$(checkpoints)" -gt "$1" ]; }

# Every write dirties pages of its own, so that checkpoints follow each other: the kill meets one under way.
load --rw=randwrite --iodepth=64 --size=64T
until_true 20 passed_checkpoint $(($(checkpoints) + 2))
killed_and_back "scattered writes"
# Few requests at a time fill journal blocks of one or two records. Blocks written for the first time free none and need few
# pages, so nothing but the journal's length asks for a checkpoint, at half of the ring of 320 MiB.
load --rw=write --iodepth=2 --offset=8T --size=32G
until_true 200 journal_used $((140 << 20))
killed_and_back "a full journal"

say "trimmed from end to end, and deleted"
nbd "$(uri v1)" '
step = 2 << 30
for pos in range(0, 64 << 40, 64 << 30):
    h.trim(step, pos)'
q volume detach v1
q volume delete v1 >/dev/null
is_freed() { [ "$(json '.pools[] | select(.name == "default") | .used_bytes' pool list)" -lt $((400 << 20)) ]; }
until_true 120 is_freed
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
