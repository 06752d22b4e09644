#!/bin/bash
# limit: 90
# failed-read.sh: reads below a disk fail, and a disk's file is cut short: I/O errors for what cannot be read and never a
# wrong byte, an event that names disk and volume, everything there again when the device is mended; at a start the disk
# is not opened, says why, and the others serve.
. "$(dirname "$0")/fault-lib.sh"
require_faults nbdsh
CACHE_MB=128 daemon_begin
q pool create bad >/dev/null
disk_make d1 128M
volume_make v1 64M
faulty_begin d2 128M
expect 0 '' q disk add "$device" --pool bad
volume_make v2 64M --pool bad
cat >"$dir/pattern.py" <<'END'
import struct
def block(n):
    return struct.pack(">Q", n + 1) * 512
def write(first, n):
    for i in range(first, first + n, 64):
        h.pwrite(b"".join(block(k) for k in range(i, i + 64)), i * 4096)
    h.flush()
# Every block is right or refused; returns how many are refused.
def refused(first, n):
    bad = 0
    for k in range(first, first + n):
        try:
            assert h.pread(4096, k * 4096) == block(k), "WRONG DATA in block %d" % k
        except nbd.Error as e:
            assert e.errno == "EIO", e.errno
            bad += 1
    return bad
END
with() { # VOLUME STATEMENTS
	n_checks=$((n_checks + 1))
	nbdsh -u "$(uri "$1")" -c "exec(open('$dir/pattern.py').read())" -c "$2"
}
with v1 'write(0, 1024)'
with v2 'write(0, 1024)'

say "while it serves"
break_ d2 pread
with v2 'assert refused(0, 256) == 256'
expect 0 'disk n1-d2.*v2.*cannot be read' q events
is "the disk" "$(disk_state n1-d2)" running
expect 1 'n1-d2' q status
with v1 'assert refused(0, 1024) == 0; write(1024, 64)'
mend d2 pread
with v2 'assert refused(0, 1024) == 0; write(1024, 64); assert refused(1024, 64) == 0'

say "at the start"
daemon_stop
break_ d2 pread
daemon_start
holds test "$(disk_state n1-d2)" != running
expect 1 'n1-d2.*cannot be read' q status
with v1 'assert refused(0, 1088) == 0'
expect 1 'cannot be read' q disk add "$device"
mend d2 pread
expect 0 '' q disk add "$device"
volume_anew v2
with v2 'assert refused(0, 1088) == 0'
expect 0 '' q status

say "its file is cut short under the daemon"
cp --sparse=always "$dir/disks/d1.img" "$dir/whole.img"
with v1 'write(4096, 4096)'
truncate -s 16M "$dir/disks/d1.img"
with v1 'assert refused(0, 1088) + refused(4096, 4096) > 0'
with v2 'assert refused(0, 1088) == 0'
daemon_kill
daemon_start
holds test "$(disk_state n1-d1)" != running
expect 1 'n1-d1.*(shrunk|is only).*16M' q status
with v2 'assert refused(0, 1088) == 0'
expect 1 'shrunk' q disk add "$dir/disks/d1.img"
cp --sparse=always "$dir/whole.img" "$dir/disks/d1.img"
expect 0 '' q disk add "$dir/disks/d1.img"
volume_anew v1
with v1 'assert refused(0, 1088) == 0'
expect 0 '' q status
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
expect 0 '' q disk check "$dir/d2.img"
passed
