#!/bin/bash
# limit: 120
# give-back.sh: what is trimmed or deleted is given back to the file that a disk lies in, on a daemon that is idle afterwards, and
# after a restart too.
. "$(dirname "$0")/lib.sh"
require nbdsh jq
daemon_begin
disk_make d1 1G

# Writes MIB MiB of bytes that no file system stores as a hole.
write() { # URI MIB
	nbd "$1" "
data = bytes(range(1, 256)) * (1 << 13)
for i in range($2):
    h.pwrite(data[i:i + (1 << 20)], i << 20)
h.flush()"
}
used_mib() { du -m "$dir/disks/$1.img" | cut -f1; }
is_below() { [ "$(used_mib "$1")" -lt "$2" ]; }
empty=$(used_mib d1)
left=$((empty + 24)) # tables, pages, and the region that is being written to

say "a trim"
volume_make trimmed 512M
write "$(uri trimmed)" 128
holds test "$(used_mib d1)" -ge 128
nbd "$(uri trimmed)" 'h.trim(128 << 20, 0); h.flush()'
until_true 20 is_below d1 "$left"

say "a delete after a restart"
write "$(uri trimmed)" 128
daemon_restart
holds test "$(used_mib d1)" -ge 128
q volume detach trimmed >/dev/null
q volume delete trimmed >/dev/null
until_true 20 is_below d1 "$left"
nothing_waits() { [ "$(json '.disks[0].waiting_bytes' disk list)" = 0 ]; }
until_true 20 nothing_waits

daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
