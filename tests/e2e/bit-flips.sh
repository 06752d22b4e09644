#!/bin/bash
# limit: 300
# bit-flips.sh: one bit turned over in data, pages, records, counts, journal and superblocks of a disk: it is found and named, no
# client ever gets a wrong byte (P3), and the other disk and its volumes go on.
. "$(dirname "$0")/lib.sh"
require nbdsh jq
daemon_begin
q pool create p1 >/dev/null
q pool create p2 >/dev/null
disk_make d1 256M --pool p1
disk_make d2 256M --pool p2
volume_make v1 300M --pool p1
volume_make w1 64M --pool p1
volume_make v2 64M --pool p2

# Every block of a volume tells its volume and its number.
cat >"$dir/pattern.py" <<'END'
import errno, os, struct
def block(volume, n):
    return (volume.encode().ljust(8) + struct.pack(">Q", n)) * 256
def write(volume, first, n):
    for i in range(first, first + n, 64):
        h.pwrite(b"".join(block(volume, k) for k in range(i, i + 64)), i * 4096)
# Reads every block; a wrong byte ends the test; returns the numbers of those that are refused.
def read(volume, first, n):
    bad = []
    for i in range(first, first + n, 64):
        try:
            data = h.pread(64 * 4096, i * 4096)
            assert data == b"".join(block(volume, k) for k in range(i, i + 64)), "WRONG DATA in blocks from %d" % i
        except nbd.Error as e:
            assert e.errno == "EIO", e.errno
            for k in range(i, i + 64):
                try:
                    assert h.pread(4096, k * 4096) == block(volume, k), "WRONG DATA in block %d" % k
                except nbd.Error as e:
                    assert e.errno == "EIO", e.errno
                    bad.append(k)
    return bad
END
with() { # VOLUME STATEMENTS
	nbdsh -u "$(uri "$1")" -c "exec(open('$dir/pattern.py').read())" -c "$2"
}
with v1 'write("v1", 0, 2048); write("v1", 65536, 512); h.flush()'
with w1 'write("w1", 0, 1024); h.flush()'
with v2 'write("v2", 0, 1024); h.flush()'
daemon_stop
cp -r --sparse=always "$dir/disks" "$dir/sound-disks"
cp -r "$dir/data" "$dir/sound-data"

restore() {
	rm -rf "$dir/disks" "$dir/data"
	cp -r --sparse=always "$dir/sound-disks" "$dir/disks"
	cp -r "$dir/sound-data" "$dir/data"
	: >"$dir/log"
}

# The bit is turned over, the offline check finds it, and the daemon serves what it can: N_BAD "some", "none", "few" (one
# block) or "any" of v1's blocks are refused, none is wrong.
broken() { # WHAT OFFSET N_BAD [PATTERN OF THE CHECK [ITS EXIT STATUS]]
	local what=$1 offset=$2 want=$3 pattern=${4:-.} found=${5:-1} n
	say "$what, at byte $offset"
	restore
	"$here/image.py" flip "$dir/disks/d1.img" "$offset" 5
	expect "$found" "$pattern" q disk check "$dir/disks/d1.img"
	daemon_start
	# the other disk knows nothing of it
	with v2 'assert read("v2", 0, 1024) == []; write("v2", 1024, 64); h.flush()'
	n_checks=$((n_checks + 1))
	n=$(with v1 'print(len(read("v1", 0, 2048)) + len(read("v1", 65536, 512)))' 2>"$dir/said") || n=all
	if grep -q 'WRONG' "$dir/said"; then
		cat "$dir/said"
		fail "$what: wrong data"
	fi
	[ "$n" != all ] || grep -qE 'EIO|ENOENT|Unknown|requested export|not serving|failed|ESHUTDOWN' "$dir/said" || {
		cat "$dir/said"
		fail "$what: the volume failed in an odd way"
	}
	echo "   refused: $n of 2560 blocks; the daemon says: $(q events 2>/dev/null | tail -n 1)"
	case $want:$n in
	none:0 | few:1 | some:[1-9]* | any:*) ;;
	*) fail "$what: $n blocks were refused, expected $want" ;;
	esac
	if [ "$n" != 0 ]; then
		holds test "$(q --json events | jq '[.events[] | select(.level == "error" or .level == "warning")] | length')" -gt 0
	fi
	daemon_stop
}

"$here/image.py" where "$dir/disks/d1.img" >"$dir/where"
at() { jq -r "$1" "$dir/where"; }
is "data blocks on the disk" "$(at '.data | length')" 3584
# data blocks are listed as [offset, block of the volume]; only v1 has blocks past 64 MiB of it
data=$(at '[.data[] | select(.[1] >= 65536)][7][0]')
broken "a data block" "$data" few 'v1|checksum'
broken "a data block's last bit" $((data + 4095)) few
for what in leaf root; do
	offset=$(at ".[\"$what\"][0] // empty")
	[ -z "$offset" ] || broken "a page of a tree ($what)" $((offset + 16)) any 'page|checksum'
done
for what in trees "tree record" volumes "volume record" "count index" counts deltas; do
	offset=$(at ".[\"$what\"][0] // empty")
	[ -z "$offset" ] || broken "$what" $((offset + 24)) any
done
# its copy is whole: a warning
broken "one copy of the superblock" "$(($(at '.superblock[0]') + 100))" none 'warning: superblock' 0
broken "a field of the other copy" "$(($(at '.superblock[1]') + 2000))" none 'warning: superblock' 0

say "every superblock"
restore
for slot in 0 1 2 3; do
	"$here/image.py" flip "$dir/disks/d1.img" $((slot * 32768 + 300)) 1
done
expect 1 'superblock' q disk check "$dir/disks/d1.img"
daemon_start
with v2 'assert read("v2", 0, 1024) == []'
expect 1 'n1-d1' q status
holds test "$(json '.disks[] | select(.path | endswith("d1.img")) | .state' disk list)" = failed
daemon_stop

say "the journal, in the middle of what must be replayed"
restore
daemon_start
with v1 '
for i in range(200):
    h.pwrite(block("v1", i), i * 4096)
    if i % 10 == 0:
        h.flush()
h.flush()'
daemon_kill
cp --sparse=always "$dir/disks/d1.img" "$dir/crashed.img"
"$here/image.py" where "$dir/disks/d1.img" >"$dir/where"
n=$(at '.journal | length')
echo "   $n journal blocks to replay"
holds test "$n" -gt 20
"$here/image.py" flip "$dir/disks/d1.img" $(($(at ".journal[$((n / 4))]") + 70)) 3
expect 1 'journal' q disk check "$dir/disks/d1.img"
daemon_start
with v2 'assert read("v2", 0, 1024) == []'
expect 1 'journal' q status
holds test "$(json '.disks[] | select(.path | endswith("d1.img")) | .state' disk list)" = failed
daemon_stop
cp --sparse=always "$dir/crashed.img" "$dir/disks/d1.img"
daemon_start
with v1 'assert read("v1", 0, 2048) == []'
n_checks=$((n_checks + 1))

say "a scrub finds a damaged block, names it, and rewriting it heals it"
daemon_stop
restore
"$here/image.py" flip "$dir/disks/d1.img" "$data" 2
daemon_start
expect 1 'bad|damage' q disk scrub n1-d1 --wait
expect 0 'v1' q events
bad=$(with v1 'print(read("v1", 65536, 512)[0])')
with v1 "write('v1', $bad // 64 * 64, 64); h.flush(); assert read('v1', 65536, 512) == []"
expect 0 '' q disk scrub n1-d1 --wait
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
