#!/bin/bash
# limit: 180
# disks.sh: several disks and pools on one node: a volume spans them by segments, a disk that goes away takes only its own
# part along, a foreign or used disk is refused.
. "$(dirname "$0")/lib.sh"
require nbdsh jq mkfs.ext4
CACHE_MB=256 daemon_begin
disk_make d1 400M
disk_make d2 400M
disk_make d3 400M
q pool create fast >/dev/null
disk_make f1 300M --pool fast

say "a volume is larger than any disk and lies on all of them"
volume_make v1 12G
nbd "$(uri v1)" '
for s in range(12):
    h.pwrite(bytes([s + 1]) * (16 << 20), s << 30)
h.flush()'
is "disks of the volume" "$(json '.disks | length' volume show v1)" 3
for d in n1-d1 n1-d2 n1-d3; do
	holds test "$(json ".disks[] | select(.name == \"$d\") | .allocated_bytes" volume show v1)" -ge $((16 << 20))
done
volume_make f 1G --pool fast
nbd "$(uri f)" 'h.pwrite(b"f" * 65536, 0)'
is "the other pool's disk" "$(json '.disks | map(.name) | join(",")' volume show f)" n1-d4
is "allocated" "$(json '.allocated_bytes' volume show v1)" $((12 * 16 << 20))

expect 0 'reserve: +[0-9.]+[KM] ' q disk show n1-d1
expect 0 'waiting: +[0-9]' q disk show n1-d1

say "the same file by another name is told for what it is"
ln "$dir/disks/d1.img" "$dir/disks/again.img"
expect 1 'or by this one, under another name of the same file' q disk add "$dir/disks/again.img"
rm "$dir/disks/again.img"

say "writes across a segment's end"
nbd "$(uri v1)" '
import os
data = os.urandom(1 << 20)
h.pwrite(data, (1 << 30) - (1 << 19))
assert h.pread(1 << 20, (1 << 30) - (1 << 19)) == data
h.pwrite(data[:1024], (2 << 30) - 512)
assert h.pread(1024, (2 << 30) - 512) == data[:1024]
h.zero(2 << 30, (4 << 30) + 512)
assert h.pread(512, 4 << 30) == bytes([5]) * 512
assert h.pread(1 << 20, 5 << 30) == b"\0" * (1 << 20)
assert h.pread(512, (6 << 30) + 512) == bytes([7]) * 512'
n_checks=$((n_checks + 1))

if [ "$(id -u)" = 0 ] && mkdir "$dir/small" && mount -t tmpfs -o size=96M none "$dir/small" 2>/dev/null; then
	mounts+=("$dir/small")
	say "a file system that is smaller than the disk's file"
	q pool create small >/dev/null
	if q disk add "$dir/small/s.img" --size 512M --pool small >"$dir/said" 2>&1; then
		holds grep -q 'warning: the file may grow to 512M' "$dir/said"
		volume_make s 256M --pool small
		nbd "$(uri s)" '
try:
    for i in range(256):
        h.pwrite(bytes([1 + i % 255]) * (1 << 20), i << 20)
    h.flush()
    raise SystemExit("a full file system takes everything")
except nbd.Error as e:
    assert e.errno in ("EIO", "ENOSPC"), e.errno'
		expect 1 'no space is left on the file system' q status
		nbd "$(uri v1)" 'assert h.pread(4096, 0) == bytes([1]) * 4096'
		mount -o remount,size=400M "$dir/small" # after the next start it serves again
	fi
fi

say "a disk that is gone at the start: its segments fail, the rest serves"
daemon_stop
mv "$dir/disks/d2.img" "$dir/away.img"
daemon_start
expect 1 'n1-d2' q status
nbd "$(uri f)" 'assert h.pread(65536, 0) == b"f" * 65536'
got=$(nbd "$(uri v1)" '
good = bad = 0
for s in range(12):
    if s in (4, 5):
        continue
    try:
        d = h.pread(4096, (s << 30) + (8 << 20))
        assert d == bytes([s + 1]) * 4096, s
        good += 1
    except nbd.Error as e:
        assert e.errno == "EIO", e.errno
        bad += 1
print(good > 0, bad > 0)')
is "some segments serve, some do not" "$got" "True True"
daemon_stop
mv "$dir/away.img" "$dir/disks/d2.img"
daemon_start
expect 0 '' q status
nbd "$(uri v1)" '
for s in (0, 1, 2, 3, 7, 8, 9, 10, 11):
    assert h.pread(4096, (s << 30) + (8 << 20)) == bytes([s + 1]) * 4096, s'

say "disks that must not be taken"
truncate -s 64M "$dir/ext4.img"
mkfs.ext4 -q -F "$dir/ext4.img"
expect 1 'ext4' q disk add "$dir/ext4.img"
head -c 32M /dev/urandom >"$dir/random.img"
expect 1 'data' q disk add "$dir/random.img"
expect 0 '' q disk add "$dir/random.img" --force
expect '1' 'in use|already|locked' q disk add "$dir/disks/d1.img" --size 100M
expect 1 'small|at least' q disk add "$dir/tiny.img" --size 1M
holds test ! -e "$dir/tiny.img"
expect 1 '' q disk add "$dir/no/such/folder/x.img" --size 64M
expect 1 '' q disk add "$dir/disks"
expect 1 '' q disk add "$dir/absent.img"
expect 1 'pool' q disk add "$dir/new.img" --size 64M --pool nowhere

say "a path as it is typed, also of a file that is gone"
(
	cd "$dir/disks"
	expect 0 'n1-d1' q disk show ./d1.img
	expect 1 'no disk' q disk show ./never.img
	mv d3.img elsewhere
	expect 0 'n1-d3' q disk show ./d3.img
	mv elsewhere d3.img
)

say "removing"
expect 1 'data|volume|in use' q disk remove n1-d1
expect 0 '' q disk remove "$dir/random.img"
expect 0 '' q disk remove "$dir/random.img" # its answer was lost, say
expect 1 'no disk' q disk remove "$dir/never.img"
expect 1 'no disk' q disk show "$dir/random.img"
expect 1 'copies' q volume create r --size 1G --replicas 6

say "deleting frees every disk"
q volume detach v1
q volume delete v1 >/dev/null
all_free() { [ "$(json '[.disks[] | select(.pool == "default") | .used_bytes] | add' disk list)" -lt $((40 << 20)) ]; }
until_true 30 all_free
daemon_stop
for image in "$dir"/disks/*.img; do
	expect 0 '' q disk check "$image"
done
passed
