#!/bin/bash
# limit: 90
# slow-disk.sh: a disk whose every operation takes a tenth of a second: its own volume is slow, no other is; nothing is
# given up or lost. A daemon that is killed keeps the slow disk locked until its last writes have landed: the next one, a
# check and a format wait for that.
. "$(dirname "$0")/fault-lib.sh"
require_faults nbdsh
daemon_begin
disk_make d1 128M
volume_make v1 64M
q pool create slow >/dev/null
faulty_begin d2 128M --filter=delay rdelay=100ms wdelay=100ms
expect 0 '' q disk add "$device" --pool slow
volume_make v2 64M --pool slow

say "another disk's volume is as fast as ever"
failing_load_begin --depth 4 "$(uri v2)"
load_tell load
load_hear loading
took_ms() { # how long 200 writes, each flushed, take on the other disk
	nbdsh -u "$(uri v1)" -c '
import time
t = time.monotonic()
for i in range(200):
    h.pwrite(b"%04d" % i * 1024, i * 4096)
    h.flush()
print(int((time.monotonic() - t) * 1000))'
}
ms=$(took_ms)
echo "   200 writes with their flushes: $ms ms"
holds test "$ms" -lt 20000 # on the slow one: 40 s
expect 0 '' q status

say "killed while its writes are under way: what comes next waits for them"
daemon_kill
load_hear lost
echo "   $heard"
expect 0 '' q disk check "$device"
daemon_start
load_tell verify
load_hear verified
echo "   $heard"
load_tell load
load_hear loading
daemon_kill
load_hear lost
load_end

say "a format waits, too"
rm -rf "$dir/data" "$dir/disks"
daemon_begin
expect 1 'existing quarry disk' q disk add "$device"
expect 0 '' q disk add "$device" --force
passed
