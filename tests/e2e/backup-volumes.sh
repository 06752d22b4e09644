#!/bin/bash
# limit: 480
# backup-volumes.sh: backups of the daemon's own snapshots: what an incremental one reads is counted by the daemon; rolled
# back, grown, restored and compared over NBD.
. "$(dirname "$0")/lib.sh"
require jq qemu-img nbdsh nbdinfo curl fio
require_daemon
q help snapshot 2>/dev/null | grep -q 'create NAME@SNAP' || skip "this release has no snapshots"
daemon_begin
disk_make d1 6G
repo=$dir/repo

read_bytes() { # that the daemon has sent to NBD clients
	curl -sf --unix-socket "$QUARRY_SOCKET" http://localhost/metrics |
		awk '/^quarry_nbd_bytes_total\{.*direction="read"/ { n += $2 } END { printf "%.0f\n", n }'
}
backup() { q --json backup create "$@" >"$dir/answer"; }
told() { jq -r ".$1" "$dir/answer"; }
restores() { # TITLE: the restored volume is what the snapshot is
	q backup restore "$repo/$1" again >/dev/null || return 1
	q volume attach again --nbd --read-only >/dev/null
	q volume attach "$1" --nbd >/dev/null
	qemu-img compare -q -f raw -F raw "$(uri again)" "$(uri "$1")" || return 1
	q volume detach "$1" >/dev/null
	q volume detach again >/dev/null
	q volume delete again >/dev/null
}
write_random() { # VOLUME BYTES SEED: blocks of 4 KiB anywhere
	fio --name=w --ioengine=nbd --uri="$(uri "$1")" --rw=randwrite --bs=4k --iodepth=32 --io_size="$2" --randseed="$3" \
		--norandommap=0 --refill_buffers >/dev/null
}

say "10 GiB thin, 1 % of it changed anywhere: about 1 % is read"
volume_make v 10G
nbd "$(uri v)" 'import os
data = os.urandom(1 << 20)
for i in range(0, 256):
    h.pwrite(data[:-8] + i.to_bytes(8, "big"), i * (40 << 20))
h.flush()'
q snapshot create v@s1
before=$(read_bytes)
backup v@s1 "$repo"
is "the base" "$(told base)" ""
full=$(($(read_bytes) - before))
holds test "$full" -ge $((256 << 20))
holds test "$full" -lt $((280 << 20))
write_random v 100M 7
q snapshot create v@s2
before=$(read_bytes)
backup v@s2 "$repo"
part=$(($(read_bytes) - before))
is "the base" "$(told base)" s1
say "read for the first: $full bytes, for the second: $part"
holds test "$part" -ge $((99 << 20))
holds test "$part" -le $((110 << 20))
is "what the command says" "$(told read_bytes)" "$part"
holds restores v@s2
holds restores v@s1

say "rolled back: what differs is read, and no more"
q volume detach v >/dev/null
q snapshot rollback v@s1 >/dev/null
q volume attach v --nbd >/dev/null
nbd "$(uri v)" 'h.pwrite(b"x" * 4096, 20 << 20); h.zero(1 << 20, 30 << 20); h.flush()'
q snapshot create v@s3
backup v@s3 "$repo"
is "the base" "$(told base)" s2
holds test "$(told read_bytes)" -le $((110 << 20))
holds restores v@s3

say "grown; and a snapshot deleted that nothing needs"
q volume resize v 11G >/dev/null
nbd "$(uri v)" 'h.pwrite(b"y" * 4096, 11 * (1 << 30) - 4096); h.flush()'
q snapshot delete v@s2 >/dev/null
q snapshot create v@s4
backup v@s4 "$repo"
is "the base" "$(told base)" s3
holds test "$(told read_bytes)" -le 65536
holds restores v@s4

say "a name that was used again is no base"
q snapshot delete v@s4 >/dev/null
nbd "$(uri v)" 'h.pwrite(b"z" * 4096, 0); h.flush()'
q snapshot create v@s4
q snapshot create v@s5
backup v@s5 "$repo"
is "the base" "$(told base)" s3
holds restores v@s5
is "left attached" "$(curl -sf --unix-socket "$QUARRY_SOCKET" http://localhost/v1/volumes/v/snapshots |
	jq '[.snapshots[].attachments[]] | length')" 0
expect 0 'v@s5 +whole' q backup verify "$repo"
expect 0 'kept' q backup prune "$repo" --keep-last 2
holds restores v@s5

say "the daemon ends while it is read: nothing is recorded, and the next try goes on"
write_random v 200M 9 # enough for several packs, and for the daemon to end in time
q snapshot create v@s6
rm -rf "$dir/other"
"$BUILD/quarry" backup create v@s6 "$dir/other" --rate-limit 60M >/dev/null 2>"$dir/said" &
pid=$!
others+=("$pid")
reading() { find "$dir/other/packs" -type f -size +1M | grep -q .; }
until_true 20 reading
daemon_kill
status=0
wait "$pid" || status=$?
is "exit status" "$status" 1
is "lines said" "$(wc -l <"$dir/said")" 1
daemon_start
is "backups" "$(q --json backup list "$dir/other" | jq '.backups | length')" 0
kept=$(du -sb "$dir/other/packs" | cut -f 1)
backup v@s6 "$dir/afresh"
whole=$(told stored_bytes)
backup v@s6 "$dir/other"
say "stored when begun anew: $(told stored_bytes) bytes, $whole without the $kept that were there"
holds test "$kept" -gt $((30 << 20))
holds test "$(told stored_bytes)" -lt $((whole - kept * 9 / 10))
repo=$dir/other
holds restores v@s6

say "holes of more than one question: nothing is waited for that has come already"
volume_make thin 3G
for i in 1 2 3 4 5 6 7 8; do
	nbd "$(uri thin)" "h.pwrite(bytes([$i]) * 4096, 1 << 20); h.flush()"
	q snapshot create "thin@n$i" >/dev/null
	expect 0 '' timeout 60 "$BUILD/quarry" backup create "thin@n$i" "$dir/thin"
done
for i in 1 2 3 4; do
	expect 0 '' timeout 60 "$BUILD/quarry" volume import "$(uri thin)" "copy$i"
	expect 0 '' timeout 60 "$BUILD/quarry" volume export thin@n8 "$dir/thin$i.raw"
	rm "$dir/thin$i.raw"
done
passed
