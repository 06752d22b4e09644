#!/bin/bash
# limit: 240
# fio-verify.sh: fio writes with checksums of its own and reads them back, in blocks, runs of blocks and odd sectors; again
# after a restart and after a kill.
. "$(dirname "$0")/lib.sh"
require fio
daemon_begin
disk_make d1 2G
volume_make v1 256M

# NAME OPTIONS ...: writes, then checks in the same run; says how many bytes
verified() {
	local name=$1
	shift
	expect 0 'err= 0' fio --name="$name" --ioengine=nbd --uri="$(uri v1)" --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 --randrepeat=1 --allrandrepeat=1 "$@"
	grep -E '(READ|WRITE):' "$dir/said"
}

say "4 KiB"
verified block --rw=randwrite --bs=4k --size=128m --iodepth=32
say "64 KiB"
verified run --rw=randwrite --bs=64k --size=256m --iodepth=16
say "512 bytes, at sectors that are no blocks"
verified sector --rw=randwrite --bs=512 --size=8m --offset=512 --iodepth=32
verified odd --rw=randwrite --bsrange=512-65536 --bs_unaligned=0 --blockalign=512 --size=64m --offset=1536 --iodepth=16
say "sequential, 1 MiB"
verified long --rw=write --bs=1m --size=256m --iodepth=8
say "writes and reads of what was written, mixed, several connections"
verified mixed --rw=randrw --bs=4k --size=32m --io_size=64m --iodepth=16 --numjobs=4 --offset_increment=32m --verify_backlog=256

say "the job file, then a restart, then a kill"
export URI
URI=$(uri v1)
expect 0 'err= 0' fio --section=write --section=check "$top/fio-jobs/verify.fio"
daemon_restart
expect 0 'err= 0' fio --section=check "$top/fio-jobs/verify.fio"
daemon_kill
daemon_start
expect 0 'err= 0' fio --section=check "$top/fio-jobs/verify.fio"
# a test that cannot fail shows nothing
nbd "$URI" 'h.pwrite(b"x" * 100 + b"\0" * 412, 77 << 20)'
expect 1 'verify: bad' fio --section=check "$top/fio-jobs/verify.fio"
passed
