#!/bin/bash
# limit: 120
# disks-older.sh: an older copy of the only disk is put back while the daemon is not there: nothing old, and nothing empty, is
# served for what was written since.
. "$(dirname "$0")/lib.sh"
require nbdsh jq
require_daemon
CACHE_MB=32 daemon_configure
daemon_start
disk_make d1 64M

put() { # VOLUME BYTE
	nbd "$(uri "$1")" "h.pwrite(bytes([$2]) * 1048576, 0); h.flush()"
}
held() { nbd "$(uri "$1")" 'print(h.pread(512, 0)[0])'; }

say "from before the volume was"
volume_make old 16M
put old 1
daemon_stop
cp "$dir/disks/d1.img" "$dir/d1.older"
daemon_start
volume_make v 16M
put v 2
daemon_stop
cp "$dir/disks/d1.img" "$dir/d1.newest"
cp "$dir/d1.older" "$dir/disks/d1.img"
daemon_start
expect 1 'Input/output error' nbd "$(uri v)" 'h.pread(512, 0)'
expect 1 'v .*lacks what the volume had there.*Put back the newest' q status
expect 0 'disk-not-joined.*volume v cannot use disk n1-d1' q events
is "what is older is there" "$(held old)" 1
daemon_stop
cp "$dir/d1.newest" "$dir/disks/d1.img"
daemon_start
is "what is newer is there with the newest" "$(held v)" 2
passed
