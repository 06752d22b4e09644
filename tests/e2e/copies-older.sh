#!/bin/bash
# limit: 120
# copies-older.sh: an older copy of a disk is put back while the daemon is not there: from before the volume was, from
# before it was rolled back, or from before the last start. It is not opened; when it is accepted, nothing of it is served:
# the disk is stale, is compared as a whole with the other copy, and is right alone after that. Accepted while the volume
# is served, or while it is detached.
. "$(dirname "$0")/lib.sh"
require nbdsh jq
require_daemon
CACHE_MB=32 daemon_configure
daemon_start
disk_make d1 64M
disk_make d2 64M

put() { # BYTE AT: MiB
	nbd "$(uri v)" "h.pwrite(bytes([$1]) * 1048576, $2 * 1048576); h.flush()"
}
held() { nbd "$(uri v)" 'print(*[h.pread(512, i << 20)[0] for i in range(6)])'; }
all_current() { [ "$(q --json volume show v | jq '[.copies[] | select(.state == "current")] | length')" = 2 ]; }

older_is_found() { # WANTED [detached]: d2 is put back as it was; then it is alone
	local i
	[ "${2:-}" = "" ] || q volume detach v >/dev/null
	daemon_stop
	cp "$dir/d2.older" "$dir/disks/d2.img"
	daemon_start
	[ "${2:-}" != "" ] || is "what is read without it" "$(held)" "$1"
	expect 1 'is an older copy' q disk add "$dir/disks/d2.img"
	q disk add "$dir/disks/d2.img" --accept-older >/dev/null
	[ "${2:-}" = "" ] || q volume attach v --nbd >/dev/null
	for i in 1 2 3 4 5 6; do
		is "what is read, $i" "$(held)" "$1"
	done
	[ "${2:-}" = "" ] || expect 0 'older copy of the disk was put back' q --json events
	until_true 30 all_current
	is "what is read of both" "$(held)" "$1"
	daemon_stop
	mv "$dir/disks/d1.img" "$dir/d1.away"
	daemon_start
	is "what is read of d2 alone" "$(held)" "$1"
	daemon_stop
	mv "$dir/d1.away" "$dir/disks/d1.img"
	daemon_start
	until_true 30 all_current
}

say "from before the volume was"
daemon_stop
cp "$dir/disks/d2.img" "$dir/d2.older"
daemon_start
volume_make v 16M --replicas 2
put 1 0
put 2 1
q snapshot create v@s1 >/dev/null
put 3 1
older_is_found "1 3 0 0 0 0"
cp "$dir/d2.older" "$dir/d2.oldest"

say "from before a rollback"
daemon_stop
cp "$dir/disks/d2.img" "$dir/d2.older"
daemon_start
put 9 4
q volume detach v >/dev/null
q snapshot rollback v@s1 >/dev/null
q volume attach v --nbd >/dev/null
put 7 5
older_is_found "1 2 0 0 0 7"

say "from before the last start, with all its trees"
daemon_stop
cp "$dir/disks/d2.img" "$dir/d2.older"
daemon_start
put 8 0
put 6 3
older_is_found "8 2 0 6 0 7" detached

say "from before the volume was, accepted while it is detached"
cp "$dir/d2.oldest" "$dir/d2.older"
older_is_found "8 2 0 6 0 7" detached

say "from before it was stale, and after it was opened last"
complete() { q --json volume show v | jq .epoch; }
further() { [ "$(complete)" -gt "$1" ]; }
put 21 4
at=$(complete)
until_true 20 further "$at"
cp "$dir/disks/d2.img" "$dir/d2.older"
put 22 5
at=$(complete)
until_true 20 further "$at"
daemon_kill
mv "$dir/disks/d2.img" "$dir/d2.lost"
daemon_start
put 23 3
daemon_stop
cp "$dir/d2.older" "$dir/disks/d2.img"
daemon_start
until_true 30 all_current
daemon_stop
mv "$dir/disks/d1.img" "$dir/d1.away"
daemon_start
is "what is read of d2 alone" "$(held)" "8 2 0 23 21 22"
daemon_stop
mv "$dir/d1.away" "$dir/disks/d1.img"
daemon_start
until_true 30 all_current

say "and nothing is said of a disk that was killed with the daemon"
n_told=$(q --json events | grep -c 'older copy' || true)
for i in 1 2 3; do
	put $((10 + i)) 2
	daemon_kill
	daemon_start
	is "what is read after the kill" "$(held)" "8 2 $((10 + i)) 23 21 22"
	holds all_current
done
is "events of older copies" "$(q --json events | grep -c 'older copy' || true)" "$n_told"
passed
