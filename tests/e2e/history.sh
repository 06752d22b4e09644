#!/bin/bash
# limit: 240
# history.sh: snapshots, clones and what changed, through the command and through NBD clients; across restarts; a full pool is
# freed by deleting snapshots.
. "$(dirname "$0")/lib.sh"
require nbdinfo nbdcopy nbdsh qemu-img jq cmp
daemon_begin
disk_make d1 256M
disk_make d2 256M
volume_make vm1 2G
volume_make log 1G

say "one point of several volumes, read beside what goes on"
nbd "$(uri vm1)" 'h.pwrite(b"a" * (1 << 20), 0); h.pwrite(b"b" * 65536, 1 << 30); h.flush()'
expect 0 "took snapshot 'log@s1'" q snapshot create vm1@s1 log@s1
expect 0 "^snapshot 'log@s1' exists already; nothing changed$" q snapshot create vm1@s1 log@s1
expect 1 "no volume 'nothing'" q snapshot create vm1@s9 nothing@s9
holds grep -q 'snapshot create vm1@s9 nothing@s9: refused (not-found)' "$dir/log"
nbd "$(uri vm1)" 'h.pwrite(b"c" * 8192, 4096); h.trim(65536, 1 << 30); h.flush()'
expect 0 '' q snapshot create vm1@s2
expect 0 'nbd\+unix:///vm1@s1' q volume attach vm1@s1 --nbd
expect 0 '' q volume attach vm1@s2 --nbd
expect 0 '' nbdinfo --is read-only "$(uri vm1@s1)"
nbd "$(uri vm1@s1)" 'assert h.pread(1 << 20, 0) == b"a" * (1 << 20); assert h.pread(65536, 1 << 30) == b"b" * 65536'
nbd "$(uri vm1@s2)" 'assert h.pread(16384, 0) == b"a" * 4096 + b"c" * 8192 + b"a" * 4096'
is "exports" "$(nbdinfo --json --list "nbd+unix:///?socket=$dir/nbd.sock" | jq -r '.exports[]."export-name"' | tr '\n' ' ')" \
	"log vm1 vm1@s1 vm1@s2 "

say "what changed, by the command and by its bitmap"
is "extents" "$(json '[.extents[] | [.offset_bytes, .length_bytes, .zero]] | tostring' snapshot diff vm1@s1 vm1@s2)" \
	'[[4096,8192,false],[1073741824,65536,true]]'
is "nothing yet" "$(json '.changed_bytes' snapshot diff vm1@s2)" 0
dirty() { # NAME SNAP: offset and length of what is dirty
	nbdinfo --json --map=qemu:dirty-bitmap:"$2" "$(uri "$1")" | jq -c '[.[] | select(.type == 1) | [.offset, .length]]'
}
is "dirty since s1 in the volume" "$(dirty vm1 s1)" '[[4096,8192],[1073741824,65536]]'
is "dirty since s1 in s2" "$(dirty vm1@s2 s1)" '[[4096,8192],[1073741824,65536]]'
is "dirty since s2" "$(dirty vm1 s2)" '[]'
nbdinfo --list --json "nbd+unix:///?socket=$dir/nbd.sock" >"$dir/list"
holds grep -q 'qemu:dirty-bitmap:s1' "$dir/list"
nbdsh -c "
h.add_meta_context('base:allocation')
h.add_meta_context('qemu:dirty-bitmap:s1')
h.add_meta_context('qemu:dirty-bitmap:s2')
h.add_meta_context('qemu:dirty-bitmap:nothing')
h.connect_uri('$(uri vm1)')
assert h.can_meta_context('qemu:dirty-bitmap:s2') and not h.can_meta_context('qemu:dirty-bitmap:nothing')
seen = {}
def status(context, offset, entries, error):
    seen[context] = entries
h.pwrite(b'd' * 4096, 0)
h.block_status(1 << 20, 0, status)
assert set(seen) == {'base:allocation', 'qemu:dirty-bitmap:s1', 'qemu:dirty-bitmap:s2'}, seen
assert seen['base:allocation'] == [1 << 20, 0], seen
assert seen['qemu:dirty-bitmap:s1'] == [12288, 1, (1 << 20) - 12288, 0], seen
assert seen['qemu:dirty-bitmap:s2'] == [4096, 1, (1 << 20) - 4096, 0], seen
h.block_status(8192, 4096, status, 1 << 3)
assert seen['qemu:dirty-bitmap:s1'] == [8192, 1] and seen['qemu:dirty-bitmap:s2'] == [8192, 0], seen"
n_checks=$((n_checks + 1))

say "a clone, and its difference to another point"
expect 0 "is a clone of 'vm1@s1'$" q volume clone vm1@s1 c1
expect 0 "is a clone of 'vm1@s1' already; nothing changed$" q volume clone vm1@s1 c1
expect 1 'exists' q volume clone vm1@s2 c1
q volume attach c1 --nbd >/dev/null
nbd "$(uri c1)" 'assert h.pread(65536, 1 << 30) == b"b" * 65536; h.pwrite(b"e" * 4096, 81920)'
is "clone and its origin" "$(json '[.extents[] | .offset_bytes] | tostring' snapshot diff vm1@s1 c1)" '[81920]'
is "clone and what came later" "$(json '[.extents[] | .offset_bytes] | tostring' snapshot diff vm1@s2 c1)" \
	'[4096,81920,1073741824]'

say "a roll back, and what changed then"
expect 1 'detach' q snapshot rollback vm1@s1
q volume detach vm1 >/dev/null
expect 0 "is as it was at snapshot 'vm1@s1'$" q snapshot rollback vm1@s1
expect 0 "is as it was at snapshot 'vm1@s1' already; nothing changed$" q snapshot rollback vm1@s1
is "told so" "$(json .unchanged snapshot rollback vm1@s1)" true
q volume attach vm1 --nbd >/dev/null
nbd "$(uri vm1)" 'assert h.pread(1 << 20, 0) == b"a" * (1 << 20)'
is "undone" "$(dirty vm1 s2)" '[[4096,8192],[1073741824,65536]]'
is "the same" "$(dirty vm1 s1)" '[]'

say "all of it across restarts"
for how in stop kill kill; do
	"daemon_$how"
	for image in "$dir"/disks/*.img; do
		expect 0 '' q disk check "$image"
	done
	daemon_start
	nbd "$(uri vm1@s2)" 'assert h.pread(4096, 8192) == b"c" * 4096'
	nbd "$(uri c1)" 'assert h.pread(4096, 81920) == b"e" * 4096'
	is "snapshots" "$(json '[.snapshots[] | .volume + "@" + .name] | tostring' snapshot list)" \
		'["log@s1","vm1@s1","vm1@s2"]'
done

say "a schedule"
expect 1 "^quarry: --every '9s' is out of range: a schedule takes a snapshot every 10 s to 68 years" \
	q snapshot schedule log --every 9s --keep 2
expect 0 '' q snapshot schedule log --every 10s --keep 2
has_kept() { [ "$(json '[.snapshots[] | select(.scheduled and .state == "ok")] | length' snapshot list log)" = 2 ]; }
until_true 20 has_kept
expect 0 'log +10s +2' q status
expect 0 'ends|no schedule' q snapshot schedule log --off

say "exact figures"
head -c 20M /dev/urandom >"$dir/random"
q volume create big --size 1G >/dev/null
q volume attach big --nbd >/dev/null
nbdcopy "$dir/random" "$(uri big)"
q snapshot create big@full >/dev/null
is "nothing is unique" "$(json '.unique_bytes' snapshot show big@full)" 0
nbd "$(uri big)" 'h.trim(20 << 20, 0); h.flush()'
is "all is unique" "$(json '.unique_bytes' snapshot show big@full)" $((20 << 20))
frees=$(json '.frees_bytes' snapshot show big@full)
before=$(json '.pools[0].free_bytes' pool list)
expect 0 "^deleted snapshot 'big@full'$" q snapshot delete big@full
expect 0 "^snapshot 'big@full' was deleted before; nothing changed$" q snapshot delete big@full
is_freed() { [ $(($(json '.pools[0].free_bytes' pool list) - before)) -ge "$frees" ]; }
until_true 20 is_freed

say "a full pool is freed by deleting snapshots"
n=0
while nbdcopy "$dir/random" "$(uri big)" 2>/dev/null; do
	n=$((n + 1))
	q snapshot create "big@s$n" >/dev/null
	nbd "$(uri big)" 'h.trim(20 << 20, 0)'
	[ $n -lt 60 ] || fail "the pool does not fill up"
done
holds test $n -gt 5
for i in $(seq $n); do
	q snapshot delete "big@s$i" >/dev/null
done
writes() { nbdcopy "$dir/random" "$(uri big)"; }
until_true 30 writes
holds cmp -n $((20 << 20)) "$dir/random" <(nbdcopy "$(uri big)" -)
expect 1 'attached' q volume delete vm1
q volume detach vm1@s1 >/dev/null
q volume detach vm1@s2 >/dev/null
q volume detach vm1 >/dev/null
expect 1 'snapshots' q volume delete vm1
expect 0 '' q volume delete vm1 --snapshots
nbd "$(uri c1)" 'assert h.pread(65536, 1 << 30) == b"b" * 65536'
passed
