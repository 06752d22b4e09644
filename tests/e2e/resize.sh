#!/bin/bash
# limit: 120
# resize.sh: a volume grows while it is used, shrinks only below nothing of value unless forced; a disk grows with its file.
. "$(dirname "$0")/lib.sh"
require nbdinfo nbdsh jq
daemon_begin
disk_make d1 1G
volume_make v1 64M

nbd "$(uri v1)" 'h.pwrite(b"a" * 65536, 0); h.pwrite(b"z" * 65536, (64 << 20) - 65536)'
say "growing online"
mkfifo "$dir/grown"
nbdsh -u "$(uri v1)" -c "
open('$dir/grown').read()
assert h.pread(65536, 0) == b'a' * 65536
h.pwrite(b'b' * 512, 512)" &
client=$!
expect 0 '' q volume resize v1 3G
: >"$dir/grown"
holds wait $client
is "size for new clients" "$(nbdinfo --size "$(uri v1)")" $((3 << 30))
nbd "$(uri v1)" '
assert h.pread(65536, (64 << 20) - 65536) == b"z" * 65536
assert h.pread(65536, 64 << 20) == b"\0" * 65536
h.pwrite(b"e" * 4096, (3 << 30) - 4096)'
expect 0 '' q volume resize v1 3G

say "shrinking"
expect 1 'data|use|force' q volume resize v1 1G
is "size after the refusal" "$(nbdinfo --size "$(uri v1)")" $((3 << 30))
nbd "$(uri v1)" 'h.trim(4096, (3 << 30) - 4096); h.flush()'
expect 0 '' q volume resize v1 64M
is "size" "$(nbdinfo --size "$(uri v1)")" $((64 << 20))
expect 1 '' q volume resize v1 32M
expect 0 '' q volume resize v1 32M --force
nbd "$(uri v1)" '
assert h.get_size() == 32 << 20
assert h.pread(65536, 0)[1024:] == b"a" * (65536 - 1024)'
say "what was cut off does not come back"
expect 0 '' q volume resize v1 64M
nbd "$(uri v1)" 'assert h.pread(65536, (64 << 20) - 65536) == b"\0" * 65536'

say "sizes that make no sense"
# shellcheck disable=SC2317
refused() { ! "$@" 2>"$dir/said" && test -s "$dir/said"; }
for size in 0 -1 1000 17E 4097T ten 64MM ''; do
	holds refused q volume resize v1 "$size"
done
is "size" "$(json .size_bytes volume show v1)" $((64 << 20))

say "a disk grows with its file at the next start, with all that is on it"
before=$(json '.disks[] | select(.name == "n1-d1") | .size_bytes' disk list)
daemon_stop
truncate -s 2G "$dir/disks/d1.img"
daemon_start
after=$(json '.disks[] | select(.name == "n1-d1") | .size_bytes' disk list)
is "the disk's size before" "$before" $((1 << 30))
is "the disk's size after" "$after" $((2 << 30))
nbd "$(uri v1)" 'assert h.pread(65536, 0)[1024:] == b"a" * (65536 - 1024)'
volume_make v2 1500M
nbd "$(uri v2)" '
for i in range(1400):
    h.pwrite(bytes([i % 251 + 1]) * (1 << 20), i << 20)
h.flush()
assert h.pread(1 << 20, 1399 << 20) == bytes([1399 % 251 + 1]) * (1 << 20)'
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
