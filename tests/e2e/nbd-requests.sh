#!/bin/bash
# limit: 120
# nbd-requests.sh: requests written by hand, right ones and wrong ones; nbd_requests.py says what must come back.
. "$(dirname "$0")/lib.sh"
require nbdsh
/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "python3-libnbd is not installed"
daemon_begin
disk_make d1 1G
volume_make v1 5G
holds /usr/bin/python3 "$here/nbd_requests.py" "$dir/nbd.sock" v1 $((5 << 30))

say "a read-only attachment refuses what would change it"
volume_make v2 64M
nbd "$(uri v2)" 'h.pwrite(b"r" * 4096, 0); h.flush()'
q volume detach v2
q volume attach v2 --nbd --read-only >/dev/null
expect 0 '' nbdinfo --is read-only "$(uri v2)"
expect 0 'EPERM' nbdsh -u "$(uri v2)" -c '
h.set_strict_mode(0)
for call in (lambda: h.pwrite(b"x" * 512, 0), lambda: h.zero(512, 0), lambda: h.trim(4096, 0)):
    try:
        call()
        print("not refused")
        sys.exit(1)
    except nbd.Error as e:
        print(e.errno)
assert h.pread(4096, 0) == b"r" * 4096
'
passed
