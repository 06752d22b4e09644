#!/bin/bash
# limit: 180
# full-pool.sh: a full pool fails writes with ENOSPC and nothing else: reads, trims, zeroes and deletes go on, and what is
# freed can be written again.
. "$(dirname "$0")/lib.sh"
require nbdinfo nbdsh jq
daemon_begin
disk_make d1 256M
volume_make fat 1G
volume_make other 64M
nbd "$(uri other)" 'h.pwrite(b"o" * (1 << 20), 0); h.flush()'

# Writes until the pool is full; prints how many MiB went in. The pattern of MiB n is n.
cat >"$dir/fill.py" <<'END'
import errno, os, struct, sys
n, start = 0, int(os.environ.get("START", "0"))
h.set_strict_mode(0)
try:
    while n < 1024:
        h.pwrite(struct.pack(">Q", start + n) * 131072, (start + n) << 20)
        n += 1
except nbd.Error as e:
    assert e.errno == "ENOSPC", "a full pool answered %s" % e.errno
h.flush()
print(n)
END
# fill URI [START]
fill() { START=${2:-0} nbd "$1" "exec(open('$dir/fill.py').read())"; }

verify() { # URI FIRST N: these MiB hold what was written
	nbd "$1" "
import struct
for i in range($2, $2 + $3):
    assert h.pread(1 << 20, i << 20) == struct.pack('>Q', i) * 131072, 'MiB %d' % i"
	n_checks=$((n_checks + 1))
}

say "filling"
n=$(fill "$(uri fat)")
echo "$n MiB went in"
holds test "$n" -gt 160
holds test "$n" -lt 256
verify "$(uri fat)" 0 "$n"
expect 1 'pool-full .*pool default .*writes .* fail' q status
is "told once" "$(q --json events | jq '[.events[] | select(.code == "pool-full")] | length')" 1

say "what a full pool still does"
expect 0 'ENOSPC' nbdsh -u "$(uri other)" -c '
try:
    for i in range(64):
        h.pwrite(b"n" * 65536, (2 << 20) + i * 65536)
    print("not full")
except nbd.Error as e:
    print(e.errno)'
nbd "$(uri other)" 'assert h.pread(1 << 20, 0) == b"o" * (1 << 20)'
nbd "$(uri fat)" 'h.zero(4096, 512 << 20); h.flush()'
expect 0 '' q volume list
expect 0 '' q volume create empty --size 1T
volume_make attached 1G
nbd "$(uri attached)" 'assert h.pread(4096, 5 << 20) == b"\0" * 4096'
daemon_kill
daemon_start
verify "$(uri fat)" 0 "$n"

say "overwriting on a full pool: fails or works, loses nothing"
nbd "$(uri fat)" '
import struct
h.set_strict_mode(0)
for i in range(32):
    try:
        h.pwrite(struct.pack(">Q", i) * 131072, i << 20)
    except nbd.Error as e:
        assert e.errno == "ENOSPC", e.errno'
verify "$(uri fat)" 0 "$n"

say "trims give space back"
nbd "$(uri fat)" 'h.trim(64 << 20, 0); h.flush()'
m=$(fill "$(uri fat)" 300)
echo "$m MiB went into what 64 MiB of trims gave back"
holds test "$m" -ge 56
verify "$(uri fat)" 64 $((n - 64))
verify "$(uri fat)" 300 "$m"
nbd "$(uri fat)" 'assert h.pread(1 << 20, 0) == b"\0" * (1 << 20)'

say "a delete gives all of it back"
q volume detach fat
q volume delete fat >/dev/null
is_freed() { [ "$(json '.pools[] | select(.name == "default") | .used_bytes' pool list)" -lt $((32 << 20)) ]; }
until_true 30 is_freed
expect 0 '' q status
volume_make again 1G
k=$(fill "$(uri again)")
holds test "$k" -ge $((n - 24))
nbd "$(uri other)" 'assert h.pread(1 << 20, 0) == b"o" * (1 << 20)'

say "with a snapshot: a trim frees what only the volume has"
q volume detach again
q volume delete again >/dev/null
until_true 30 is_freed
volume_make kept 2G
nbd "$(uri kept)" 'for i in range(64): h.pwrite(b"k" * (1 << 20), i << 20)'
q snapshot create kept@s >/dev/null
k=$(fill "$(uri kept)" 64)
holds test "$k" -ge $((n - 64 - 24))
nbd "$(uri kept)" '
for at in range(0, 2048, 512):
    h.trim(512 << 20, at << 20)
h.flush()'
m=$(fill "$(uri kept)" 1024)
holds test "$m" -ge $((k - 8))
verify "$(uri kept)" 1024 "$m"
expect 0 '' q volume clone kept@s clone
q volume attach clone --nbd >/dev/null
nbd "$(uri clone)" 'for i in range(64): assert h.pread(1 << 20, i << 20) == b"k" * (1 << 20)'
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
