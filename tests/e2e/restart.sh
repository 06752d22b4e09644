#!/bin/bash
# limit: 120
# restart.sh: a restart, clean or by a kill, brings back everything: disks, volumes, attachments, data; nothing more.
. "$(dirname "$0")/lib.sh"
require nbdcopy nbdinfo jq cmp
daemon_begin
disk_make d1 1G
disk_make d2 1G
volume_make plain 64M
volume_make spread 3G
q volume create detached --size 1G >/dev/null
volume_make frozen 32M
nbd "$(uri frozen)" 'h.pwrite(b"f" * 4096, 0)'
q volume detach frozen
q volume attach frozen --nbd --read-only >/dev/null

head -c 64M /dev/urandom >"$dir/image"
nbdcopy "$dir/image" "$(uri plain)"
nbd "$(uri spread)" '
for segment in range(3):
    h.pwrite(bytes([segment + 1]) * 65536, segment << 30)
h.flush()'

# What a restart must not change; counters and times are left out.
state() {
	q --json volume list | jq -S '[.volumes[] | {name, size_bytes, pool, replicas, uuid, attachments}]'
	q --json disk list | jq -S '[.disks[] | {name, path, pool, uuid, size_bytes}]'
}

data_is_there() {
	holds cmp "$dir/image" <(nbdcopy "$(uri plain)" -)
	nbd "$(uri spread)" '
for segment in range(3):
    assert h.pread(65536, segment << 30) == bytes([segment + 1]) * 65536, segment
    assert h.pread(4096, (segment << 30) + 65536) == b"\0" * 4096, segment'
	expect 0 '' nbdinfo --is read-only "$(uri frozen)"
	expect 1 '' nbdinfo "$(uri detached)"
	n_checks=$((n_checks + 1))
}

state >"$dir/before"
data_is_there
for how in stop kill stop kill kill; do
	say "$how"
	"daemon_$how"
	for image in "$dir"/disks/*.img; do
		expect 0 '' q disk check "$image"
	done
	daemon_start
	state >"$dir/after"
	holds cmp "$dir/before" "$dir/after"
	data_is_there
done

say "a second daemon on the same data is refused"
pid=$daemon_pid
daemon_try_start
[ "$daemon_said" = died ] || fail "a second daemon said $daemon_said"
wait "$daemon_pid" || second_status=$?
is "its exit status" "${second_status:-0}" 1
daemon_pid=$pid
data_is_there

say "a stop while clients are busy loses nothing that was completed"
nbd "$(uri plain)" 'h.zero(64 << 20, 0)'
load_begin tests/e2e/loadgen "$(uri plain)"
load_tell load
load_hear loading
kill -HUP "$daemon_pid"
kill -USR1 "$daemon_pid" # one of its own
until_true 10 grep -q 'SIGHUP ignored' "$dir/log"
daemon_stop
load_hear lost
daemon_start
load_tell verify
load_hear verified
echo "$heard"
load_end

say "an older metadata.db is put back: noticed, and nothing is dropped"
volume_make old 3G
nbd "$(uri old)" 'h.pwrite(b"a" * 4096, 0)'
daemon_stop
cp "$dir/data/metadata.db" "$dir/older.db"
daemon_start
nbd "$(uri old)" 'h.pwrite(b"b" * 4096, 2 << 30)'
q snapshot create old@since >/dev/null
daemon_stop
cp "$dir/data/metadata.db" "$dir/newest.db"
metadata_put() { # COPY
	rm -f "$dir"/data/metadata.db*
	cp "$1" "$dir/data/metadata.db"
}
metadata_put "$dir/older.db"
for _ in 1 2; do # a second try finds the same
	daemon_start
	expect 1 'older metadata.db put back' q status
	expect 1 'older metadata.db put back' q volume attach old --nbd
	expect 1 '' nbdinfo "$(uri old)"
	daemon_stop
done
metadata_put "$dir/newest.db"
daemon_start
nbd "$(uri old)" '
assert h.pread(4096, 0) == b"a" * 4096
assert h.pread(4096, 2 << 30) == b"b" * 4096'
expect 0 'since' q snapshot list old
daemon_stop
metadata_put "$dir/older.db"
daemon_start
expect 0 '' q volume attach old --nbd --takeover
for _ in 1 2; do
	nbd "$(uri old)" '
assert h.pread(4096, 0) == b"a" * 4096
assert h.pread(4096, 2 << 30) == b"\0" * 4096
h.pwrite(b"c" * 4096, 4096)
assert h.pread(4096, 4096) == b"c" * 4096'
	daemon_stop
	daemon_start
done
n_checks=$((n_checks + 3))

say "another name than the store remembers is refused, and the old one serves again"
daemon_stop
sed -i 's/name = "n1"/name = "n2"/' "$dir/quarry.conf"
daemon_try_start
is "a start under another name" "$daemon_said" died
wait "$daemon_pid" || true
daemon_pid=
expect 0 'cannot start: .*/metadata.db: .* write node.name = "n1" again' tail -n 3 "$dir/log"
sed -i 's/name = "n2"/name = "n1"/' "$dir/quarry.conf"
daemon_start
nbd "$(uri old)" 'assert h.pread(4096, 4096) == b"c" * 4096'
passed
