#!/bin/bash
# limit: 60
# failed-flush.sh: a device that fails one flush and then says again that all is well: what was written before is in
# doubt, so the disk stays failed until it was recovered; a flush is never tried again.
. "$(dirname "$0")/fault-lib.sh"
require_faults nbdsh
daemon_begin
disk_make d1 128M --pool default
q pool create bad >/dev/null

# nbdkit's filters fail no flush: a server of shell commands does, over a small file.
image=$dir/d2.img
truncate -s 64M "$image"
faulty_up d2 eval get_size="echo 64M" thread_model="echo parallel" can_write="exit 0" can_flush="exit 0" \
	pread="dd if=$image iflag=skip_bytes,count_bytes skip=\$4 count=\$3 bs=64K status=none" \
	pwrite="dd of=$image oflag=seek_bytes seek=\$4 bs=64K conv=notrunc status=none" \
	flush="if [ -e $dir/d2.flush ]; then echo EIO the device has lost it >&2; exit 1; fi"
expect 0 '' q disk add "$device" --pool bad
volume_make v1 16M --pool bad
volume_make v2 16M
failing_load_begin --depth 4 "$(uri v1)"
load_tell load
load_hear loading
break_ d2 flush
load_hear lost
echo "   $heard"
mend d2 flush
disk_has_failed n1-d2 'n1-d2: flushing .* failed: Input/output error: see to the device'
volume_answers_eio v1
nbd "$(uri v2)" 'h.pwrite(b"x" * 4096, 0); h.flush(); assert h.pread(4096, 0) == b"x" * 4096'
expect 0 '' q disk add "$device"
volume_anew v1
load_tell verify
load_hear verified
echo "   $heard"
load_end
expect 0 '' q status
daemon_stop
expect 0 '' q disk check "$image"
passed
