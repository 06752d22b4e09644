#!/bin/bash
# limit: 300
# cli.sh: the command and the daemon together: every noun once, data in and out of volumes, what survives restarts, and no
# byte of memory lost by the command.
. "$(dirname "$0")/lib.sh"
require jq qemu-img nbdinfo nbdkit nbdsh
daemon_begin
# Some commands run under valgrind, when it is there and nothing else watches the memory.
watch=
if command -v valgrind >/dev/null && [ -z "${QUARRY_SAN:-}" ]; then
	watch="valgrind -q --leak-check=full --error-exitcode=99 --undef-value-errors=no"
fi
w() {
	# shellcheck disable=SC2086 # a command with its words
	$watch "$BUILD/quarry" "$@"
}

say "disks and pools"
expect 0 '^healthy: .*0 disks' w status
expect 0 '^added disk .* of 512M to pool .default.' w disk add "$dir/disks/a.img" --size 512M
a=$(json '.disks[0].name' disk list)
for name in "$a" "$dir/disks/a.img" "$(json '.disks[0].uuid' disk list)"; do
	expect 0 "name: +$a" w disk show "$name"
done
(cd "$dir/disks" && expect 0 "name: +$a" q disk show ./a.img)
expect 0 "^disk '$a' of 512M is in pool 'default' already; nothing changed$" q disk add "$dir/disks/a.img"
is "disks after a second add" "$(json '.disks | length' disk list)" 1
expect 0 '' q pool create fast --failure-domain disk
expect 0 'failure domain: +disk' q pool show fast
expect 0 "^pool 'fast' exists already; nothing changed$" q pool create fast --failure-domain disk
expect 0 "^changed pool 'fast'$" q pool set fast --failure-domain node
expect 0 "^pool 'fast' is so already; nothing changed$" q pool set fast --failure-domain node
expect 0 '^fast +1 +node' q pool list
expect 0 '' q disk add "$dir/disks/b.img" --size 256M --pool fast --reserve
expect 0 'scrub ended at .*, 0 bad blocks' q disk scrub "$a" --wait
expect 1 '' q pool delete fast
expect 0 '^removed disk' q disk remove "$dir/disks/b.img"
expect 0 'was removed before; nothing changed$' q disk remove "$dir/disks/b.img"
expect 0 "^deleted pool 'fast'$" q pool delete fast
expect 0 "^pool 'fast' was deleted before; nothing changed$" q pool delete fast
expect 0 '^n1 +running +1 +0' q node list
expect 0 'nbd socket: ' q node show n1

say "a volume's life"
expect 0 "^created volume 'v1' of 10G$" w volume create v1 --size 10G
expect 0 "^volume 'v1' of 10G exists already; nothing changed$" w volume create v1 --size 10G
is "what a repeat answers" "$(json '[.name, .unchanged] | tostring' volume create v1 --size 10G)" '["v1",true]'
expect 0 '^v1 +default +10G +0 +1 +detached$' w volume list
expect 0 "^nbd\+unix:///v1\?socket=$dir/nbd.sock$" w volume attach v1 --nbd
is "lines of attach" "$(q volume attach v1 --nbd | wc -l)" 1
nbd "$(q volume attach v1 --nbd)" 'h.pwrite(b"1" * (1 << 20), 5 << 30)'
expect 0 '^v1 +default +10G +1M +1 +serving nbd$' q volume list
expect 1 '' q volume attach v1 --nbd --read-only
expect 1 '' q volume resize v1 5G
expect 0 "has 20G now" q volume resize v1 20G
expect 0 "has 20G already; nothing changed" q volume resize v1 20G
expect 0 "^volume 'v1' is now 'v2'$" q volume rename v1 v2
expect 0 "^volume 'v1' is already 'v2'; nothing changed$" q volume rename v1 v2
expect 1 'there is no volume' w volume show v1
expect 0 "^v2 +default +20G +1M +0 +0 +1M +$a" w usage
expect 0 '^v2 ' w top --once
expect 1 'attached' q volume delete v2
expect 0 "^detached volume 'v2'$" q volume detach v2
expect 0 "^volume 'v2' is not attached; nothing changed$" q volume detach v2
expect 0 '^nbd' q volume attach v2 --nbd --read-only
is "read only" "$(nbdinfo --json "$(uri v2)" | jq '.exports[0].is_read_only')" true
expect 0 '' q volume detach v2 --nbd
expect 0 "^deleted volume 'v2'$" q volume delete v2
expect 0 "^volume 'v2' was deleted before; nothing changed$" q volume delete v2
expect 2 '' q volume create 'a b' --size 1G
expect 1 '2 failure domains' q volume create v3 --size 1G --replicas 2

say "data in and out"
head -c 20000001 /dev/urandom >"$dir/random.raw"
truncate -s 300M "$dir/random.raw"
expect 0 "of 300M, 19.1M of it data" w volume import "$dir/random.raw" i1
holds test "$(json .allocated_bytes volume show i1)" -lt $((25 << 20))
expect 0 '' w volume export i1 "$dir/back.raw"
head -c 1001 "$dir/random.raw" >"$dir/odd.raw" # no whole number of sectors
expect 0 'as volume .odd. of 1K, .* verified' q volume import "$dir/odd.raw" odd
expect 0 '' q volume export odd "$dir/odd-back.raw"
holds cmp <(cat "$dir/odd.raw" <(head -c 23 /dev/zero)) "$dir/odd-back.raw"
expect 0 '' q volume delete odd
holds cmp "$dir/random.raw" "$dir/back.raw"
holds test "$(stat -c %b "$dir/back.raw")" -lt $((50 << 11))
expect 0 '' q volume export i1 "$dir/back.qcow2"
holds qemu-img check -q "$dir/back.qcow2"
holds qemu-img compare -q "$dir/back.qcow2" "$dir/random.raw"
expect 0 '' q volume import "$dir/back.qcow2" i2
q volume attach i2 --nbd >"$dir/uri"
holds qemu-img compare -q "$(cat "$dir/uri")" "$dir/random.raw"
expect 0 '' q volume create i3 --size 400M
q volume attach i3 --nbd >/dev/null
nbd "$(uri i3)" 'h.pwrite(b"3" * (1 << 20), 200 << 20)'
expect 1 "has data, .*overwrite it with --force" q volume export i2 "$(uri i3)"
expect 0 '' q volume export i2 "$(uri i3)" --force
is "what was a hole is zero, what lies behind is left" "$(nbd "$(uri i3)" '
print(h.pread(1 << 20, 200 << 20) == bytes(1 << 20), h.get_size())')" "True $((400 << 20))"
expect 0 '' q snapshot create i3@now
expect 0 '^i3@now$' q names export # for the completion
expect 0 '^i3$' q names export
nbd "$(uri i3)" 'h.pwrite(b"4" * (1 << 20), 0)'
expect 0 "^exported snapshot 'i3@now' .*, verified$" w volume export i3@now "$dir/now.raw"
holds cmp -n $((300 << 20)) "$dir/random.raw" "$dir/now.raw"
is "size" "$(stat -c %s "$dir/now.raw")" $((400 << 20))
q volume attach i3@now --nbd >/dev/null
expect 0 '' q volume export i3@now "$dir/now.qcow2"
holds qemu-img compare -q "$dir/now.qcow2" "$dir/now.raw"
is "left attached" "$(nbdinfo --size "$(uri i3@now)")" $((400 << 20))
expect 0 "^detached snapshot 'i3@now'$" q volume detach i3@now
expect 0 "^snapshot 'i3@now' is not attached; nothing changed$" q volume detach i3@now
expect 1 "no snapshot|not found|there is no" q volume export i3@later "$dir/later.raw"
holds test ! -e "$dir/later.raw"
expect 2 'not the name of a snapshot' q volume export i3@ "$dir/later.raw"
expect 0 '' q snapshot delete i3@now
expect 1 'has 300M, too little for the 400M of volume' q volume export i3 "$(uri i2)"
expect 1 'no volume|exists' q volume import "$dir/random.raw" i1
is "attached" "$(json '[.volumes[] | select(.attachments != []) | .name] | join(" ")' volume list)" "i2 i3"

say "a full pool: the import says so and is undone"
nbdkit -f --exit-with-parent -U "$dir/large.sock" -P "$dir/large.pid" pattern 700M &
others+=($!)
until_true 10 test -s "$dir/large.pid"
expect 1 'No space left.*deleted again' w volume import "nbd+unix:///?socket=$dir/large.sock" large
is_gone() { ! q volume show large; }
until_true 30 is_gone # its space is freed in the background
expect 1 'no volume' q volume show large

say "events, also across a restart"
"$BUILD/quarry" --json events --follow >"$dir/followed" 2>"$dir/follow-said" &
follow=$!
others+=("$follow")
until_true 10 grep -q '"disk-added"' "$dir/followed"
daemon_stop
until_true 10 grep -q 'quarryd has gone' "$dir/follow-said"
daemon_start
started() { [ "$(jq -r 'select(.code == "node-started") | .time' "$dir/followed" | wc -l)" = 2 ]; }
until_true 10 started
kill "$follow"
holds jq -es 'all(has("sequence") and has("time") and has("level"))' "$dir/followed"
is "back after the restart" "$(json '[.volumes[] | select(.state == "serving") | .name] | join(" ")' volume list)" "i2 i3"

expect 1 'in use by a running quarryd' q disk check "$dir/disks/a.img"
is "JSON of a disk in use" "$({ q --json disk check "$dir/disks/a.img" 2>/dev/null || true; } | jq -r .error.code)" in-use

say "no daemon"
daemon_stop
expect 1 "there is no quarryd at|nobody answers at" w status
# a killed daemon's lock goes with its last request, a moment after the process: held here until the check waits for it
python3 - "$dir/disks/a.img" <<'EOF' &
import fcntl, os, select, struct, sys
f = open(sys.argv[1], "r+b")
F_OFD_SETLK = 37
fcntl.fcntl(f, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
print("locked", file=open(sys.argv[1] + ".locked", "w"), flush=True)
select.select([], [], [], 0.3) # as long as its requests take
EOF
others+=($!)
until_true 10 test -s "$dir/disks/a.img.locked"
expect 0 'sound' w disk check "$dir/disks/a.img"
rm "$dir/disks/a.img.locked"
expect 0 'sound' w disk check "$dir/disks/a.img"
is "its JSON" "$(q --json disk check "$dir/disks/a.img" | jq .sound)" true
dd if=/dev/urandom of="$dir/disks/a.img" bs=4096 count=32 conv=notrunc status=none
expect 1 '' q disk check "$dir/disks/a.img"
expect 1 '' q disk check "$dir/random.raw"
expect 1 'No such file' q disk check "$dir/nothing"
is "JSON of no disk" "$({ q --json disk check "$dir/nothing" 2>/dev/null || true; } | jq -r .error.code)" local
is "JSON of a bad disk" "$({ q --json disk check "$dir/disks/a.img" 2>/dev/null || true; } | jq .sound)" false
if [ -n "$watch" ]; then
	expect 0 'usage: quarry' w --help
	expect 2 'did you mean' w volum list
	holds q completion zsh >/dev/null
fi

passed
