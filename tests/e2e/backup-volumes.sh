#!/bin/bash
# limit: 480
# backup-volumes.sh [MIB]: backups of the daemon's own snapshots: what an incremental one reads is counted by the daemon; rolled
# back, grown, restored and compared over NBD. MIB change in a volume that is so large that they are 1 % of it; with 100 it has 10 GiB.
. "$(dirname "$0")/lib.sh"
require jq qemu-img nbdsh nbdinfo curl fio
require_daemon
q help snapshot 2>/dev/null | grep -q 'create NAME@SNAP' || skip "this release has no snapshots"
changed=${1:-20}
size_mib=$((changed * 1024 / 10))
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

say "$size_mib MiB thin, 1 % of it changed anywhere: about 1 % is read"
volume_make v ${size_mib}M
nbd "$(uri v)" "import os
data = os.urandom(1 << 18)
for i in range(0, 200):
    h.pwrite(data[:-8] + i.to_bytes(8, 'big'), i * ($size_mib << 20) // 200 // 4096 * 4096)
h.flush()"
q snapshot create v@s1
before=$(read_bytes)
backup v@s1 "$repo"
is "the base" "$(told base)" ""
full=$(($(read_bytes) - before))
holds test "$full" -ge $((50 << 20))
holds test "$full" -lt $((56 << 20))
write_random v ${changed}M 7
q snapshot create v@s2
before=$(read_bytes)
backup v@s2 "$repo"
part=$(($(read_bytes) - before))
is "the base" "$(told base)" s1
say "read for the first: $full bytes, for the second: $part"
holds test "$part" -ge $((changed * 99 / 100 << 20))
holds test "$part" -le $((changed * 11 / 10 << 20))
is "what the command says" "$(told read_bytes)" "$part"
holds restores v@s2

say "rolled back: what differs is read, and no more"
q volume detach v >/dev/null
q snapshot rollback v@s1 >/dev/null
q volume attach v --nbd >/dev/null
nbd "$(uri v)" 'h.pwrite(b"x" * 4096, 20 << 20); h.zero(1 << 20, 30 << 20); h.flush()'
q snapshot create v@s3
backup v@s3 "$repo"
is "the base" "$(told base)" s2
holds test "$(told read_bytes)" -le $(((changed + 2) * 11 / 10 << 20))
holds restores v@s3

say "grown; and a snapshot deleted that nothing needs"
size_mib=$((size_mib + 1024))
q volume resize v ${size_mib}M >/dev/null
nbd "$(uri v)" "h.pwrite(b'y' * 4096, ($size_mib << 20) - 4096); h.flush()"
q snapshot delete v@s2 >/dev/null
q snapshot create v@s4
backup v@s4 "$repo"
is "the base" "$(told base)" s3
holds test "$(told read_bytes)" -le 65536

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
repo=$dir/repo

attached() { # to snapshots of a volume
	q --json snapshot list "$1" | jq '[.snapshots[].attachments[]] | length'
}
has_read() { [ "$(read_bytes)" -gt $((before + (1 << 20))) ]; }
begin() { # REPOSITORY: a backup of v@s5, $pid, which stands still in its middle
	before=$(read_bytes)
	"$BUILD/quarry" backup create v@s5 "$1" --rate-limit 16M >"$dir/slow" 2>&1 &
	pid=$!
	others+=("$pid")
	until_true 30 has_read
	kill -STOP "$pid"
}
sample() {
	samples+=("$(read_bytes) $(date +%s%N)")
}
has_sampled() { # BYTES: so many were read
	sample
	[ "$(($(read_bytes) - before))" -gt "$1" ]
}
rate_holds() { # MIB: in each of the samples, since $started; never ahead of the rate, but by 50 ms and a piece of 128 KiB
	local sample
	for sample in "${samples[@]}"; do
		bytes=$((${sample% *} - before)) ms=$(((${sample#* } - started) / 1000000))
		holds test "$bytes" -le $(((ms + 50) * ($1 << 20) / 1000 + (128 << 10)))
	done
}
go_on() {
	kill -CONT "$pid"
	wait "$pid" || fail "it ended with an error: $(cat "$dir/slow")"
}
say "two copies of a snapshot at once: the first to end leaves it to the other"
begin "$dir/slow.1"
expect 0 '' q backup create v@s5 "$dir/quick"
expect 0 '' q volume export v@s5 "$dir/quick.raw" --no-verify
rm "$dir/quick.raw"
is "attached for the other" "$(attached v)" 1
expect 1 'is attached' q snapshot delete v@s5
go_on
is "left attached" "$(attached v)" 0
q volume attach v@s5 --nbd >/dev/null
expect 0 '' q volume export v@s5 "$dir/quick.raw" --no-verify
is "attached by hand, and still" "$(attached v)" 1
q volume detach v@s5 >/dev/null

say "what it could have read while it stood still is not made up for"
begin "$dir/slow.2"
read -r -t 2 <> <(:) || true # so that there is something to make up for
samples=() before=$(read_bytes) started=$(date +%s%N)
kill -CONT "$pid"
until_true 60 has_sampled $((16 << 20))
rate_holds 16

say "killed: what it left attached is in nobody's way"
kill -KILL "$pid"
wait "$pid" 2>/dev/null || true
is "left attached" "$(attached v)" 1
expect 0 '' q volume export v@s5 "$dir/quick.raw" --no-verify --force
is "left attached by the next copy" "$(attached v)" 0
begin "$dir/slow.3"
kill -KILL "$pid"
wait "$pid" 2>/dev/null || true
until_true 10 q snapshot delete v@s5 # when the daemon has seen that it is gone

say "renamed while it is backed up"
write_random v 1M 8
q snapshot create v@s5
begin "$dir/slow.4"
q volume rename v w >/dev/null
volume_make v 1G
go_on
is "left attached" "$(attached w)" 0
q volume detach v >/dev/null
q volume delete v >/dev/null
q volume rename w v >/dev/null
expect 0 'v@s5 +whole' q backup verify "$dir/slow.4"
rm -r "$dir"/slow.* "$dir/quick"*

say "the daemon ends while it is read, at the rate that was asked for: nothing is recorded, and the next try goes on"
nbd "$(uri v)" 'import os
for i in range(20):
    h.pwrite(os.urandom(1 << 20), (1 << 30) + (i << 21))'
q snapshot create v@s6
rm -rf "$dir/other"
samples=()
before=$(read_bytes)
started=$(date +%s%N)
sample_until_a_pack_is_full() {
	sample
	[ -d "$dir/other/packs" ] && find "$dir/other/packs" -type f -size +1M ! -name "tmp-*" | grep -q .
}
"$BUILD/quarry" backup create v@s6 "$dir/other" --rate-limit 20M >/dev/null 2>"$dir/said" &
pid=$!
others+=("$pid")
until_true 20 sample_until_a_pack_is_full
daemon_kill
status=0
wait "$pid" || status=$?
rate_holds 20
say "read: $bytes bytes within $ms ms"
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
for i in 1 2 3 4 5 6; do
	nbd "$(uri thin)" "h.pwrite(bytes([$i]) * 4096, 1 << 20); h.flush()"
	q snapshot create "thin@n$i" >/dev/null
	expect 0 '' timeout 60 "$BUILD/quarry" backup create "thin@n$i" "$dir/thin"
done
for i in 1 2 3; do
	expect 0 '' timeout 60 "$BUILD/quarry" volume import "$(uri thin)" "copy$i"
	expect 0 '' timeout 60 "$BUILD/quarry" volume export thin@n6 "$dir/thin$i.raw"
	rm "$dir/thin$i.raw"
done
passed
