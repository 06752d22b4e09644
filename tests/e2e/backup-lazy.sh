#!/bin/bash
# limit: 400
# backup-lazy.sh [ROUNDS]: `backup restore --lazy`: a volume is read and written while it is filled; the daemon and the filler are
# killed at random meanwhile; a damaged repository costs the blocks that are hurt, and no others.
. "$(dirname "$0")/lib.sh"
require jq qemu-img nbdsh fio
require_daemon
rounds=${1:-4}
daemon_begin
disk_make d1 2G
mib=96 # of the volumes: more than one leaf
repo=$dir/repo

fill() { q --json volume show "$1" | jq -r ".fill${2:+.$2}"; }
is_whole() { [ "$(fill "$1")" = null ]; }
filler_begin() { # NEW [BACKUP]: in the foreground of a process of ours; $filler
	: >"$dir/filler"
	"$BUILD/quarry" backup restore "$repo/${2:-v@s}" "$1" --lazy --wait >"$dir/filler" 2>&1 &
	filler=$!
	others+=("$filler")
	until_true 10 grep -q '^nbd' "$dir/filler"
}
# Each of the repository's packs leads to itself: it cannot be opened, and is neither damaged nor gone.
packs_take() {
	local pack
	mkdir "$dir/away"
	mv "$repo"/packs/* "$dir/away"
	for pack in "$dir"/away/*; do
		ln -s "${pack##*/}" "$repo/packs/${pack##*/}"
	done
}
packs_give() {
	mv "$dir"/away/* "$repo/packs"
	rmdir "$dir/away"
}
# As filler_begin, and it stands still: connected, and with none of the data brought, however fast it is and however busy the
# machine. It has read the packs' tables before there is the volume, and says that this is attached before it fills it: into a
# pipe that is full. Until there is room, the packs are taken away; what cannot be read it tries again for 15 s.
filler_catch() { # NEW [BACKUP]
	[ -p "$dir/full" ] || mkfifo "$dir/full"
	exec 8<>"$dir/full"
	dd if=/dev/zero of="$dir/full" oflag=nonblock bs=4096 2>/dev/null || true
	"$BUILD/quarry" backup restore "$repo/${2:-v@s}" "$1" --lazy --wait >&8 2>"$dir/filler" 8>&- &
	filler=$!
	others+=("$filler")
	is_attached() { q --json volume show "$1" | jq -e '.attachments | length == 1'; }
	until_true 10 is_attached "$1"
	packs_take
	dd if="$dir/full" iflag=nonblock of=/dev/null bs=4096 2>/dev/null || true
	until_true 10 grep -q "cannot be read: .*; trying again" "$dir/filler"
	kill -STOP "$filler"
	packs_give
	is "fillers that are connected" "$(fill "$1" clients)" 1
}
same() { # NEW [SNAPSHOT]: holds what the snapshot holds
	qemu-img compare -q -f raw -F raw "$(uri "$1")" "$(uri "${2:-v@s}")"
}
drop() {
	q volume detach "$1" >/dev/null
	q volume delete "$1" >/dev/null
}

volume_make v ${mib}M
fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bs=16k --iodepth=16 --size=${mib}M --io_size=40M --randseed=5 \
	--randrepeat=1 --refill_buffers >/dev/null
q snapshot create v@s >/dev/null
q volume attach v@s --nbd >/dev/null
q backup create v@s "$repo" >/dev/null

say "attached at once, filled in the background"
expect 0 "^nbd\+unix:///new" q backup restore "$repo" new --lazy
holds same new # reads wait for what they need
until_true 60 is_whole new
holds same new
expect 0 "" q status
q snapshot create new@x >/dev/null
q volume detach new >/dev/null
q volume delete new --snapshots >/dev/null

say "packs that a prune writes again meanwhile are found again"
repo=$dir/pruned
volume_make p 80M
fio --name=w --ioengine=nbd --uri="$(uri p)" --rw=write --bs=128k --size=80M --refill_buffers >/dev/null
q snapshot create p@s >/dev/null
q backup create p@s "$repo" >/dev/null
fio --name=w --ioengine=nbd --uri="$(uri p)" --rw=write:128k --bs=384k --size=79M --io_size=59M --refill_buffers >/dev/null
q snapshot create p@t >/dev/null
q volume attach p@t --nbd >/dev/null
q backup create p@t "$repo" >/dev/null
filler_catch new p@t
before=$(ls "$repo/packs")
q backup prune "$repo" --keep-last 1 >/dev/null
holds test "$(comm -12 <(echo "$before") <(ls "$repo/packs") | wc -l)" -lt "$(wc -l <<<"$before")"
kill -CONT "$filler"
holds wait "$filler"
is "left to fill" "$(fill new)" null
holds same new p@t
drop new
repo=$dir/repo

say "answers that come while it records are not overlooked"
filler_begin new
kill -STOP "$daemon_pid"
read -r -t 5.2 <> <(:) || true # longer than from one record to the next
kill -CONT "$daemon_pid"
until_true 60 is_whole new
wait "$filler" || fail "the filler ended with an error: $(cat "$dir/filler")"
drop new

say "a client's writes and discards win, whatever is killed"
interrupted=0
for round in $(seq "$rounds"); do
	# in every second round it stands still beside the client, and so is surely killed before its end
	if [ $((round % 2)) = 1 ]; then filler_begin new; else filler_catch new; fi
	# a pattern of our own on every second MiB, while it is filled, and nothing on much of the others
	nbd "$(uri new)" "for i in range(0, $mib, 2):
    h.pwrite(bytes([0x42]) * 8192, (i << 20) + 4096)
    (h.trim if i % 4 else h.zero)(1 << 19, (i + 1 << 20) + (1 << 18))
h.flush()"
	kill -KILL "$filler" 2>/dev/null || true
	wait "$filler" 2>/dev/null || true
	if ! is_whole new; then
		interrupted=$((interrupted + 1))
		if [ $((interrupted % 2)) = 0 ]; then
			daemon_kill
			daemon_start
		fi
		filler_begin new
		daemon_kill # the filler waits for its return
		daemon_start
		wait "$filler" || fail "the filler ended with an error: $(cat "$dir/filler")"
	fi
	holds is_whole new
	nbd "$(uri new)" "import nbd
s = nbd.NBD(); s.connect_uri('$(uri v@s)')
for i in range($mib):
    want = bytearray(s.pread(1 << 20, i << 20))
    if i % 2 == 0:
        want[4096:4096 + 8192] = bytes([0x42]) * 8192
    else:
        want[1 << 18:3 << 18] = bytes(1 << 19)
    assert h.pread(1 << 20, i << 20) == want, i"
	drop new
done
holds test "$interrupted" -ge $((rounds / 2))

say "without a filler: refused what cannot be, told what is missing"
filler_catch new
kill -KILL "$filler"
wait "$filler" 2>/dev/null || true
expect 1 "while it is being filled" q snapshot create new@x
expect 1 "while it is being filled" q volume resize new 1G
expect 1 "while it is being filled" q volume rename new newer
expect 1 "exists" q backup restore "$repo/v@s" new
expect 0 "^filled" q volume show new
expect 0 "FILLING" q status
expect 0 "^volume 'new' is whole$" q backup restore "$repo/v@s" new --lazy --wait
drop new

say "a second one stands by, and takes over"
filler_catch new
first=$filler
filler_begin new
until_true 10 grep -q 'stands by' "$dir/filler"
is "fillers that are connected" "$(fill new clients)" 1
kill -KILL "$first"
wait "$first" 2>/dev/null || true
wait "$filler" || fail "the second filler ended with an error: $(cat "$dir/filler")"
holds is_whole new
holds same new
drop new

say "used over vhost-user alone: it is filled all the same"
filler_catch new
is "clients beside the filler" "$(q --json volume show new | jq .attachments[0].clients)" 0
q volume attach new --vhost-user >/dev/null
q volume detach new --nbd >/dev/null
kill -CONT "$filler"
wait "$filler" || fail "the filler ended with an error: $(cat "$dir/filler")"
holds is_whole new
q volume attach new --nbd >/dev/null
holds same new
drop new

say "a pack is damaged: what is hurt is an error, the rest is served"
pack=$(find "$repo/packs" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
cp "$pack" "$dir/pack"
printf 'xxxxxxxx' | dd of="$pack" bs=1 seek=100000 conv=notrunc status=none
expect 1 "of volume 'new' cannot be had [0-9]+ bytes: [0-9]+\+[0-9]+" q backup restore "$repo/v@s" new --lazy --wait
lost=$(sed -n 's/.*cannot be had \([0-9]* bytes: [^;]*\);.*/\1/p' "$dir/said")
bytes=${lost%% *}
lost=${lost//+/\\+} # as a pattern
expect 1 "'v@s' has lost $lost$" q backup verify "$repo"
expect 1 "at least [0-9]+ bytes: [0-9]+\+[0-9]+" q backup restore "$repo/v@s" other
expect 0 "^unfillable: *$lost" q volume show new
expect 1 "fill-damaged.* $bytes bytes cannot be had.*: ${lost#*: };" q status
is "bytes that cannot be had" "$(fill new unfillable_bytes)" "$bytes"
nbd "$(uri new)" "import nbd
s = nbd.NBD(); s.connect_uri('$(uri v@s)')
lost = 0
for i in range($mib * 8):
    try:
        got = h.pread(1 << 17, i << 17)
    except nbd.Error:
        got = b''
        for k in range(32):
            try:
                got += h.pread(4096, (i << 17) + k * 4096)
            except nbd.Error:
                lost += 1
                got += s.pread(4096, (i << 17) + k * 4096)
    assert got == s.pread(1 << 17, i << 17), i
assert lost * 4096 == $bytes, lost"
expect 2 "zero-damaged needs --wait" q backup restore "$repo/v@s" zeroed --lazy --zero-damaged
expect 1 "no volume" q volume show zeroed
expect 0 "is zeros now, $lost$" q backup restore "$repo/v@s" zeroed --lazy --wait --zero-damaged
holds is_whole zeroed
nbd "$(uri zeroed)" "import nbd
s = nbd.NBD(); s.connect_uri('$(uri v@s)')
lost = 0
for i in range($mib):
    got, want = h.pread(1 << 20, i << 20), s.pread(1 << 20, i << 20)
    for k in range(0, 1 << 20, 4096) if got != want else ():
        if got[k:k + 4096] != want[k:k + 4096]:
            assert got[k:k + 4096] == bytes(4096), (i, k)
            lost += 1
assert lost * 4096 == $bytes, lost"
drop zeroed
cp "$dir/pack" "$pack"
expect 0 "" q backup restore "$repo/v@s" new --lazy --wait
holds is_whole new
holds same new
drop new

say "packs that cannot be read for a while are tried again; for longer, what is in them is an error until they can"
repo=$dir/pruned
filler_catch new p@t
kill -CONT "$filler"
holds wait "$filler"
is "what it says cannot be had" "$(grep 'cannot be had' "$dir/filler" || true)" ""
holds is_whole new
holds same new p@t
drop new
filler_catch new p@t
packs_take
kill -CONT "$filler"
status=0
wait "$filler" || status=$?
is "the end of the filler" "$status" 1
holds grep -qE "cannot be read \(.*\): of volume 'new' cannot be had [0-9]+ bytes: .* when the repository can be read" \
	"$dir/filler"
holds test "$(fill new unfillable_bytes)" -gt 0
packs_give
expect 0 "^volume 'new' is whole$" q backup restore "$repo/p@t" new --lazy --wait
holds is_whole new
holds same new p@t
drop new
repo=$dir/repo

say "a filler that was left behind does not fill another volume of that name"
volume_make u ${mib}M
nbd "$(uri u)" "for i in range($mib):
    h.pwrite(bytes([0x75]) * 4096, (i << 20) + 8192)"
q snapshot create u@s >/dev/null
q volume attach u@s --nbd >/dev/null
q backup create u@s "$repo" >/dev/null
filler_catch new
first=$filler
mv "$dir/filler" "$dir/first"
drop new
filler_begin new u@s
kill -STOP "$filler"
kill -CONT "$first"
status=0
wait "$first" || status=$?
is "the first one's end" "$status" 1
holds grep -q "volume 'new' is gone" "$dir/first"
kill -CONT "$filler"
wait "$filler" || fail "the filler ended with an error: $(cat "$dir/filler")"
holds is_whole new
holds same new u@s
drop new

say "paths with odd characters, and a tiny volume"
odd="$dir/a 'b' \"c\" \\ %s ü"
cp -r "$repo" "$odd"
expect 0 "" q backup restore "$odd/u@s" new --lazy --wait
holds same new u@s
drop new
mv "$odd" "$dir/"$'r\xff'
expect 1 "not UTF-8" q backup restore "$dir/"$'r\xff/u@s' odd --lazy
expect 1 "there is no volume" q volume show odd
volume_make t 1536
nbd "$(uri t)" 'h.pwrite(b"t" * 1536, 0)'
q snapshot create t@s >/dev/null
q volume attach t@s --nbd >/dev/null
q backup create t@s "$repo" >/dev/null
expect 0 "" q backup restore "$repo/t@s" new --lazy --wait
holds is_whole new
holds same new t@s
drop new
daemon_stop
passed
