#!/bin/bash
# limit: 240
# disks-older.sh: older copies of disks are put back while the daemon is not there, with nobody to tell them from the newest but the
# metadata: nothing old, and nothing empty, is served, until somebody accepts that the newest is lost.
. "$(dirname "$0")/lib.sh"
require nbdsh jq sqlite3
require_daemon
CACHE_MB=48 daemon_configure
daemon_start
disk_make d1 64M

disk() { echo "$dir/disks/$1.img"; }
put() { # VOLUME BYTE [SEGMENT]
	nbd "$(uri "$1")" "h.pwrite(bytes([$2]) * 65536, ${3:-0} << 30); h.flush()"
}
held() { # VOLUME [SEGMENT]
	nbd "$(uri "$1")" "print(h.pread(512, ${2:-0} << 30)[0])"
}
put_back() { # DISK IMAGE: while the daemon is stopped
	cp "$2" "$(disk "$1")"
	daemon_start
}
keep() { # DISK IMAGE: as it is when the daemon has stopped
	daemon_stop
	cp "$(disk "$1")" "$dir/$2"
}
gone() { # VOLUME
	q volume detach "$1" >/dev/null
	q volume delete "$1" >/dev/null
}
all_current() { [ "$(q --json volume show "$1" | jq '[.copies[] | select(.state == "current")] | length')" = 2 ]; }

say "from before the last start: it is not opened, however often that is tried"
volume_make v 16M
put v 1
keep d1 d1.older
daemon_start
put v 2
keep d1 d1.newest
put_back d1 "$dir/d1.older"
for _ in 1 2 3; do
	daemon_restart
	expect 1 'is an older copy, of 20.*accept-older' q disk add "$(disk d1)"
done
expect 0 'disk-not-opened.*is an older copy' q events
expect 1 'older copy' q status
expect 1 '' nbd "$(uri v)" 'h.pread(512, 0)'
holds cmp "$(disk d1)" "$dir/d1.older"
daemon_stop
put_back d1 "$dir/d1.newest"
is "what the newest holds" "$(held v)" 2

say "from while the daemon ran last"
cp "$(disk d1)" "$dir/d1.within"
put v 3
keep d1 d1.newest
put_back d1 "$dir/d1.within"
expect 1 'is an older copy' q disk add "$(disk d1)"
daemon_stop
put_back d1 "$dir/d1.newest"
is "what the newest holds" "$(held v)" 3

say "a killed daemon leaves no disk that looks older"
for i in 4 5 6; do
	put v $i
	daemon_kill
	daemon_start
	is "what is read after the kill" "$(held v)" $i
done

say "it is accepted: what was written since is lost, and a volume made since has nothing, not zeros"
volume_make young 16M
put young 7
daemon_stop
put_back d1 "$dir/d1.older"
expect 1 'no disk that is known here' q disk add "$dir/disks/other.img" --accept-older
expect 0 '' q disk add "$(disk d1)" --accept-older
expect 0 'already; nothing changed' q disk add "$(disk d1)" --accept-older
expect 0 'disk-older-accepted.*what was written there since is lost' q events
daemon_restart
is "what the older one holds" "$(held v)" 1
expect 1 'Input/output error' nbd "$(uri young)" 'h.pread(512, 0)'
expect 1 'young .*lacks what the volume had there.*Put back the newest' q status
gone young
gone v

say "a copy that was accepted takes what it lacks from the other one"
disk_make d2 64M
volume_make two 16M --replicas 2
put two 1
keep d2 d2.older
daemon_start
put two 2
q volume detach two >/dev/null
daemon_stop
put_back d2 "$dir/d2.older"
expect 0 '' q disk add "$(disk d2)" --accept-older
q volume attach two --nbd >/dev/null
is "what is read" "$(held two)" 2
expect 0 'older copy of the disk was put back: all of it is compared' q events
until_true 30 all_current two
put two 3
daemon_stop
mv "$(disk d1)" "$dir/d1.away"
daemon_start
is "what is read of it alone" "$(held two)" 3
daemon_stop
mv "$dir/d1.away" "$(disk d1)"
daemon_start
until_true 30 all_current two

say "the other one is lost as well: it counts, and what comes back later takes from it"
put two 4
q volume detach two >/dev/null
keep d2 d2.older
daemon_start
q volume attach two --nbd >/dev/null
put two 5
q volume detach two >/dev/null
daemon_stop
cp "$dir/d2.older" "$(disk d2)"
mv "$(disk d1)" "$dir/d1.away"
daemon_start
expect 1 '' q volume attach two --nbd
expect 0 '' q disk add "$(disk d2)" --accept-older
q volume attach two --nbd >/dev/null
is "what is read" "$(held two)" 4
expect 0 'copy-older-used.*volume two' q events
daemon_stop
mv "$dir/d1.away" "$(disk d1)"
daemon_start
until_true 30 all_current two
is "what is read of both" "$(held two)" 4
daemon_stop
mv "$(disk d2)" "$dir/d2.away"
daemon_start
is "what is read of the one that was away" "$(held two)" 4
daemon_stop
mv "$dir/d2.away" "$(disk d2)"
daemon_start
until_true 30 all_current two
gone two

say "segments that have another copy are its, also when one that has none makes the older copy count"
put_all() { # BYTE
	nbd "$(uri many)" "for i in range(40): h.pwrite(bytes([$1]) * 65536, i << 30)
h.flush()"
}
disk_make d3 64M
volume_make many 40G --replicas 2
put_all 1
q volume detach many >/dev/null
keep d2 d2.older
daemon_start
q volume attach many --nbd >/dev/null
put_all 2
q volume detach many >/dev/null
d1=$(json '.disks[] | select(.name == "n1-d1") | .uuid' disk list)
daemon_stop
cp "$dir/d2.older" "$(disk d2)"
mv "$(disk d3)" "$dir/d3.away"
placed=$(sqlite3 "$dir/data/metadata.db" .dump | grep -o '{"segments":{[^}]*}}' | tail -n 1)
daemon_start
expect 0 '' q disk add "$(disk d2)" --accept-older
q volume attach many --nbd >/dev/null
wanted=$(jq -r --arg d "$d1" '[range(40) as $i | if .segments["\($i)"] | index($d) then 2 else 1 end] | join(" ")' <<<"$placed")
holds grep -q 1 <<<"$wanted"
holds grep -q 2 <<<"$wanted"
is "what the segments hold" "$(nbd "$(uri many)" 'print(*[h.pread(512, i << 30)[0] for i in range(40)])')" "$wanted"
passed
