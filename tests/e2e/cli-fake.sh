#!/bin/bash
# limit: 120
# cli-fake.sh: the command against a server that stands in for the daemon (cli_fake.py): what it asks, what it prints, how it
# takes answers that no good daemon gives, and copies that fail half-way.
. "$(dirname "$0")/lib.sh"
require jq nbdkit nbdinfo qemu-img script
[ -x "$BUILD/quarry" ] || skip "quarry is not built"
mkdir "$dir/fake"
"$here/cli_fake.py" "$dir/control.sock" "$dir/fake" --tcp "$dir/port" s3cret &
others+=($!)
until_true 10 test -S "$dir/control.sock"
asked() { tail -n 1 "$dir/fake/requests"; }
mode() { echo "$1" >"$dir/fake/mode"; }
may_fail() { "$@" 2>/dev/null || true; }
good() { rm -f "$dir/fake/mode"; }

say "what is asked"
cd "$dir"
expect 0 "^added disk 'a.img' of 10G to pool 'fast'$" q disk add a.img --size 10G --pool fast --reserve
is "the request" "$(asked)" \
	"POST /v1/disks {\"path\":\"$dir/a.img\",\"size_bytes\":10737418240,\"pool\":\"fast\",\"reserve\":true}"
mode writing
expect 0 'formatting: 25% of 8G written, [0-9]+s' script -qec "'$BUILD/quarry' disk add written.img --size 8G --reserve" /dev/null
good
expect 1 "cannot find the folder of './sub/../b.img'" q disk add ./sub/../b.img
cd "$top"
expect 0 'name: +a.img' q disk show a.img
expect 0 'name: +a.img' q disk show "$dir/a.img"
expect 1 "there is no disk '/nowhere'; see 'quarry disk list'" q disk show /nowhere
expect 0 '^disk .a.img.: scrub running, 0% of 1G, 0 bad blocks' q disk scrub a.img
expect 0 'ended at .*, 0 bad blocks' q disk scrub a.img --wait
expect 1 'holds data' q disk remove a.img
expect 0 "^removed disk 'a.img'$" q disk remove a.img --force
is "the request" "$(asked)" "DELETE /v1/disks/a.img?force=true "
expect 0 '' q disk add /srv/bad
expect 1 "has 2 bad blocks; 'quarry events' names them" q disk scrub bad --wait
is "its JSON" "$(may_fail q --json disk scrub bad --wait | jq '.scrub | .bad_blocks - .healed_blocks')" 2
expect 0 'scrub: +ended at .*, 3 bad blocks, 1 of them healed' q disk show bad

expect 0 "^created pool 'p1'$" q pool create p1 --failure-domain disk
is "the request" "$(asked)" 'POST /v1/pools {"name":"p1","failure_domain":"disk"}'
expect 2 'say what to change' q pool set p1
expect 1 'a volume has at most 3 copies' q pool set p1 --replicas 4
expect 0 "^changed pool 'p1'$" q pool set p1 --min-replicas 1
expect 0 "^deleted pool 'p1'$" q pool delete p1
expect 1 "no pool 'p1'" q pool show p1
expect 0 'labels: +zone=a rack=r1' q node show n1
expect 0 '^n1 +running +1 +0 +0.1.0' q node list

expect 0 "^created volume 'v1' of 1.5G$" q volume create v1 --size 1.5G
is "the request" "$(asked)" 'POST /v1/volumes {"name":"v1","size_bytes":1610612736}'
expect 0 '' q volume create v1 --size 1.5G
expect 1 "exists with another size" q volume create v1 --size 2G
expect 0 '^v1 +default +1.5G +4K +1 +detached$' q volume list
expect 0 "^volume 'v1' has 2G now$" q volume resize v1 2G
expect 1 'has data behind' q volume resize v1 1G
expect 0 'has 1G now' q volume resize v1 1G --force
is "the request" "$(asked)" 'PATCH /v1/volumes/v1 {"size_bytes":1073741824,"force":true}'
expect 2 'say what to change' q volume set v1
expect 0 '' q volume rename v1 v9
expect 1 "no volume 'v1'" q volume show v1
expect 0 '' q volume rename v9 v1
expect 0 "^nbd\+unix:///v1\?socket=$dir/fake/v1.nbd$" q volume attach v1 --nbd --read-only
is "the request" "$(asked)" 'POST /v1/volumes/v1/attachments {"frontend":"nbd","read_only":true}'
is "lines of attach" "$(q volume attach v1 --nbd | wc -l)" 1
expect 0 'serving nbd \(read only\)' q volume list
expect 0 'disk: +d1, 4K' q volume show v1
expect 1 'is attached' q volume delete v1
expect 0 "^volume 'v1' is not attached over vhost-user; it is over NBD$" q volume detach v1 --vhost-user
expect 0 "^detached volume 'v1'$" q volume detach v1 --nbd
is "the request" "$(tail -n 2 "$dir/fake/requests" | head -n 1)" 'DELETE /v1/volumes/v1/attachments/nbd '
expect 0 "^deleted volume 'v1'$" q volume delete v1

say "looking"
expect 0 "^healthy: node 'n1', running for 1h 1m" q status
expect 0 '^2025-01-31T12:34:56Z  notice   disk d1: disk-added: added to pool default$' q events
expect 0 ' \(and 41 more like it, until 2025-01-31T12:39:00Z\)$' q events
holds sh -c '! LC_ALL=C grep -q "$(printf "\033")" "$1"' - "$dir/said"
is "events after 1" "$(q --json events --after 1 | jq '.events | length')" 1
expect 0 '^v1 +1000 +0' q top
is "reads a second" "$(q --json top | jq '.volumes[0].reads_per_s == 1000')" true
expect 0 '^POOL +SIZE' q usage
"$BUILD/quarry" events --follow >"$dir/followed" 2>"$dir/follow-said" &
follow=$!
others+=("$follow")
until_true 10 grep -q "disk d1: damage: " "$dir/followed"
mode close
until_true 10 grep -q 'quarryd has gone' "$dir/follow-said"
good
kill "$follow"

say "every command gives one JSON value"
while read -r words; do
	# shellcheck disable=SC2086 # words of a command
	q --json $words >"$dir/json" 2>/dev/null || fail "q --json $words"
	is "values of: $words" "$(jq -s length "$dir/json")" 1
done <<'END'
disk list
disk add /srv/x --size 1G
disk show x
disk scrub x
disk remove x --force
node list
node show n1
pool create p2
pool list
pool show p2
pool set p2 --replicas 1
pool delete p2
volume create j1 --size 1M
volume list
volume show j1
volume resize j1 2M
volume set j1 --replicas 1
volume attach j1 --nbd
volume detach j1
volume rename j1 j2
volume delete j2
status
events
top
usage
END
is "JSON of a refusal" "$(may_fail q --json volume show nothing | jq -r .error.code)" not-found
is "JSON of wrong usage" "$(may_fail q --json volume shwo | jq -r .error.code)" usage

say "sick and spoilt answers"
mode unhealthy
expect 1 'disk-failed +disk d1 +a write failed' q status
is "lines on standard error" "$(may_fail eval 'q status 2>&1 >/dev/null' | wc -l)" 1
is "JSON of a sick status" "$(may_fail q --json status | jq -r '.problems[0].code')" disk-failed
while IFS='|' read -r spoilt pattern; do
	mode "$spoilt"
	expect 1 "$pattern" q volume list
	is "lines said when $spoilt" "$(wc -l <"$dir/said")" 1
done <<'END'
close|ended the connection before its answer
html|is not JSON; is this quarryd
array|is not JSON; is this quarryd
empty|HTTP status 503
refuse|^quarry: stopping\?now \?\[2J$
END
good

say "no way to the daemon"
expect 1 "there is no quarryd at '$dir/nothing.sock'" q --socket "$dir/nothing.sock" status
QUARRY_SOCKET=$dir/other.sock expect 1 "there is no quarryd at '$dir/other.sock'" q status
/usr/bin/python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$dir/dead.sock"
expect 1 "nobody answers at '$dir/dead.sock'" q --socket "$dir/dead.sock" status
expect 1 'is too long' q --socket "/$(printf 'x%.0s' $(seq 200))" status
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$dir"
	chmod 600 "$dir/control.sock"
	expect 1 'no permission to use' setpriv --reuid 65534 --clear-groups "$BUILD/quarry" status
fi

say "over TCP: the token"
url=http://127.0.0.1:$(cat "$dir/port")
printf 's3cret\n' >"$dir/token"
printf 'wrong' >"$dir/token-wrong"
printf 'a b' >"$dir/token-bad"
expect 0 '^healthy' q --server "$url" --token-file "$dir/token" status
QUARRY_TOKEN=s3cret expect 0 '^healthy' q --server "$url/" status
expect 1 'wants another token' q --server "$url" status
expect 1 'wants another token' q --server "$url" --token-file "$dir/token-wrong" status
expect 1 'has a blank' q --server "$url" --token-file "$dir/token-bad" status
expect 1 'cannot read the token file' q --server "$url" --token-file "$dir/nothing" status
expect 1 'not sent unencrypted' q --server http://example.org --token-file "$dir/token" status
expect 1 'not sent unencrypted' q --server http://localhost.example.org:9750 --token-file "$dir/token" status
expect 2 'is not a URL' q --server 127.0.0.1:9750 status
expect 2 'exclude each other' q --server "$url" --socket /x status
expect 1 'cannot reach quarryd' q --server http://127.0.0.1:1 status
expect 2 'on another machine' q --server "$url" --token-file "$dir/token" disk add d1
expect 0 '' q volume create far --size 1M
expect 0 '^nbd://127.0.0.1:10809/far$' q --server "$url" --token-file "$dir/token" volume attach far --nbd
expect 0 '' q volume detach far
expect 0 '' q volume delete far

say "import and export"
head -c 3000001 /dev/urandom >"$dir/source.raw"
truncate -s 9000001 "$dir/source.raw"
expect 0 'of 8.6M, 2.9M of it data' q volume import "$dir/source.raw" i1
expect 0 "exported volume 'i1'" q volume export i1 "$dir/out.raw"
is "size, to a sector" "$(stat -c %s "$dir/out.raw")" 9000448
holds cmp -n 9000001 "$dir/source.raw" "$dir/out.raw"
holds test "$(stat -c %b "$dir/out.raw")" -lt 8000
expect 1 'exists; choose another name, or overwrite it' q volume export i1 "$dir/out.raw"
expect 1 'is a folder; name a file in it' q volume export i1 "$dir" --force
{ yes || true; } | head -c 20000000 >"$dir/old.raw"
expect 0 '' q volume export i1 "$dir/old.raw" --force
holds cmp "$dir/old.raw" "$dir/out.raw"
expect 0 '' q volume export i1 "$dir/out.qcow2"
holds qemu-img check -q "$dir/out.qcow2"
holds qemu-img compare -q "$dir/out.qcow2" "$dir/out.raw"
expect 0 '' q volume import "$dir/out.qcow2" i2
is "what --json tells" "$(q --json volume export i2 "$dir/out2" --format raw | jq -r .format)" raw
holds cmp "$dir/out2" "$dir/out.raw"
is "left attached" "$(q --json volume list | jq '[.volumes[].attachments[]] | length')" 0

say "a server on the other side: holes are zeroed there, also when it cannot zero"
for filter in '' --filter=nozero; do
	{ yes || true; } | head -c 20000000 >"$dir/target"
	rm -f "$dir/t.sock"
	nbdkit -f --exit-with-parent -U "$dir/t.sock" -P "$dir/t.pid" $filter file "$dir/target" &
	server=$!
	others+=("$server")
	until_true 10 test -s "$dir/t.pid"
	expect 1 "t.sock' has data, from byte 0 on; .* with --force" q volume export i1 "nbd+unix:///?socket=$dir/t.sock"
	is "left as it was" "$(head -c 4 "$dir/target" | tr -d '\n')" yy
	expect 0 '' q volume export i1 "nbd+unix:///?socket=$dir/t.sock" --force
	holds cmp -n 9000448 "$dir/target" "$dir/out.raw"
	is "what lies behind" "$(tail -c 4 "$dir/target" | tr -d '\n')" yy
	name=n${#filter}
	expect 0 'of 19.1M' q volume import "nbd+unix:///?socket=$dir/t.sock" "$name"
	expect 0 '' q volume export "$name" "$dir/$name.raw"
	holds cmp -n 20000000 "$dir/$name.raw" "$dir/target"
	expect 2 'format is for files' q volume import "nbd+unix:///?socket=$dir/t.sock" x --format raw
	truncate -s 1M "$dir/target"
	kill "$server"
	wait "$server" || true
	rm "$dir/t.pid"
done

say "holes that end anywhere"
cat >"$dir/odd.sh" <<-'END'
	#!/bin/sh
	case $1 in
	get_size) echo 1000000 ;;
	can_extents) exit 0 ;;
	pread) dd if="$ODD" skip="$4" count="$3" iflag=skip_bytes,count_bytes status=none ;;
	extents) echo "0 1000 hole,zero
	1000 1
	1001 20000 hole,zero
	21001 100
	21101 500000 hole,zero
	521101 8191
	529292 470708 hole,zero" ;;
	*) exit 2 ;;
	esac
END
chmod +x "$dir/odd.sh"
truncate -s 1000000 "$dir/odd"
for place in 1000:1 21001:100 521101:8191; do
	head -c "${place#*:}" /dev/urandom | dd of="$dir/odd" seek="${place%:*}" oflag=seek_bytes conv=notrunc status=none
done
ODD=$dir/odd nbdkit -f --exit-with-parent -U "$dir/odd.sock" -P "$dir/odd.pid" sh "$dir/odd.sh" &
others+=($!)
until_true 10 test -s "$dir/odd.pid"
expect 0 'of 977K, 20K of it data, verified' q volume import "nbd+unix:///?socket=$dir/odd.sock" odd
expect 0 'verified' q volume export odd "$dir/odd.raw"
holds cmp -n 1000000 "$dir/odd.raw" "$dir/odd"

say "what is not what was written is found"
names() { q --json volume list | jq -c '[.volumes[] | select(.state != "deleting") | .name]'; } # that is in the background
before=$(names)
mode lossy-nbd
expect 1 "'.*' does not give back .* bytes 0 to 1048576: .*; volume 'x' was deleted again" q volume import "$dir/source.raw" x
expect 0 'data$' q volume import "$dir/source.raw" x --no-verify
good
q volume delete x >/dev/null
nbdkit -f --exit-with-parent -U "$dir/null.sock" -P "$dir/null.pid" null 20M &
others+=($!)
until_true 10 test -s "$dir/null.pid"
expect 1 'does not give back what was written' q volume export i1 "nbd+unix:///?socket=$dir/null.sock"
expect 0 'data$' q volume export i1 "nbd+unix:///?socket=$dir/null.sock" --no-verify
is "what --json tells" "$(q --json volume export i1 "$dir/no.raw" --no-verify | jq .verified)" false

say "what cannot be imported or exported leaves nothing behind"
before=$(names)
same() { is "the volumes" "$(names)" "$before"; }
mode bad-nbd
expect 1 "cannot write .*Input/output error; volume 'x' was deleted again" q volume import "$dir/source.raw" x
good
expect 1 "'$dir' is neither a file nor a block device" q volume import "$dir" x
expect 1 'No such file' q volume import "$dir/nothing" x
expect 1 'is neither a file nor' q volume import /dev/null x
: >"$dir/empty"
expect 1 "is empty" q volume import "$dir/empty" x
expect 1 'cannot connect' q volume import "nbd+unix:///?socket=$dir/nothing" x
qemu-img create -q -f qcow2 -b "$dir/out.raw" -F raw "$dir/backed.qcow2"
expect 1 'has a backing file' q volume import "$dir/backed.qcow2" x
# nor may it have one when qemu-nbd opens it: what else is put in its place is not read, and what is put into it neither
mkdir "$dir/swapping"
cat >"$dir/swapping/qemu-nbd" <<-END
	#!/bin/bash
	[ \$SWAP = place ] && mv "$dir/swapped.qcow2" "$dir/victim.qcow2" || cat "$dir/swapped.qcow2" >"$dir/victim.qcow2"
	exec "$(command -v qemu-nbd)" "\$@"
END
chmod +x "$dir/swapping/qemu-nbd"
qemu-img create -q -f qcow2 -o data_file="$dir/data.raw" "$dir/split.qcow2" 1M
for swap in place content; do
	for other in backed split; do
		cp "$dir/out.qcow2" "$dir/victim.qcow2"
		cp "$dir/$other.qcow2" "$dir/swapped.qcow2"
		if [ $swap = place ]; then
			expect 0 '' env SWAP=place PATH="$dir/swapping:$PATH" "$BUILD/quarry" volume import "$dir/victim.qcow2" swapped
			holds cmp "$dir/out.raw" "$dir/fake/swapped.data"
			q volume delete swapped >/dev/null
		else
			expect 1 "victim.qcow2' has " env SWAP=content PATH="$dir/swapping:$PATH" \
				"$BUILD/quarry" volume import "$dir/victim.qcow2" x
		fi
	done
done
# one that was cut short is no image: what its tables say is behind its end would be zeros
for share in 1 2 3; do
	head -c $(($(stat -c %s "$dir/out.qcow2") * share / 4)) "$dir/out.qcow2" >"$dir/cut.qcow2"
	expect 1 "'$dir/cut.qcow2' is damaged, or only a part of it is here" q volume import "$dir/cut.qcow2" x
done
qemu-img create -q -f vmdk "$dir/x.vmdk" 1M
expect 1 'looks like a vmdk image' q volume import "$dir/x.vmdk" x
expect 1 'is no qcow2 image' q volume import "$dir/out.raw" x --format qcow2
expect 1 'not installed' env PATH="$dir" "$BUILD/quarry" volume import "$dir/out.qcow2" x
expect 1 "volume 'i1' exists" q volume import "$dir/out.raw" i1
same
expect 1 "no volume 'nothing'" q volume export nothing "$dir/x.raw"
expect 1 "there is no folder '$dir/no'; make it first" q volume export i1 "$dir/no/x.raw"
mkdir "$dir/folder"
expect 1 'folder' q volume export i1 "$dir/folder" --force
holds test ! -e "$dir/x.raw"
# what somebody uses is not written to: a lock, as quarryd has on its disks, and a device with a file system that is mounted
head -c 100000 /dev/urandom >"$dir/used.raw"
cp "$dir/used.raw" "$dir/used.before"
coproc lock { exec /usr/bin/python3 -c 'import fcntl, sys; f = open(sys.argv[1], "r+b"); fcntl.lockf(f, fcntl.LOCK_EX)
print(flush=True); sys.stdin.read()' "$dir/used.raw"; }
others+=("$lock_PID")
read -r _ <&"${lock[0]}"
expect 1 "'$dir/used.raw' is in use by another program" q volume export i1 "$dir/used.raw" --force
holds cmp "$dir/used.raw" "$dir/used.before"
truncate -s 32M "$dir/mounted.raw"
mkdir "$dir/mounted"
if mkfs.ext4 -q "$dir/mounted.raw" && loop=$(losetup -f --show "$dir/mounted.raw" 2>/dev/null) && loops+=("$loop") && mount "$loop" "$dir/mounted" 2>/dev/null; then
	mounts+=("$dir/mounted")
	cp "$dir/used.before" "$dir/mounted"
	expect 1 "cannot open '$loop': Device or resource busy" q volume export i1 "$loop" --force
	holds cmp "$dir/mounted/used.before" "$dir/used.before"
fi
q volume attach i1 --nbd >/dev/null
expect 0 'is attached; what is written' q volume export i1 "$dir/live.raw"
holds cmp "$dir/live.raw" "$dir/out.raw"
is "still attached" "$(q --json volume show i1 | jq '.attachments | length')" 1
expect 0 'copied_bytes' q --json volume export i1 "$dir/"$'odd\xff.raw'
mode unattached # it was attached by somebody else, since the command had looked
expect 0 'exported volume' q volume export i1 "$dir/live.raw" --force
good
is "still attached" "$(q --json volume show i1 | jq '.attachments | length')" 1
mode unmade # and made
expect 1 "volume 'i1' exists; a new one is made: choose another name$" q volume import "$dir/source.raw" i1
good
same

say "an interrupted import deletes its volume"
nbdkit -f --exit-with-parent -U "$dir/slow.sock" -P "$dir/slow.pid" --filter=delay pattern 1G rdelay=100ms &
others+=($!)
until_true 10 test -s "$dir/slow.pid"
"$BUILD/quarry" volume import "nbd+unix:///?socket=$dir/slow.sock" slow 2>"$dir/said" &
import=$!
others+=("$import")
attached() { q --json volume show slow | jq -e '.attachments | length == 1'; }
until_true 10 attached
kill -TERM "$import"
status=0
wait "$import" || status=$?
is "exit status" "$status" 1
holds grep -q "^quarry: interrupted at byte .*; volume 'slow' was deleted again$" "$dir/said"
same
"$BUILD/quarry" volume import "nbd+unix:///?socket=$dir/slow.sock" slow 2>"$dir/said" &
import=$!
others+=("$import")
until_true 10 attached
kill -STOP "$import"
q volume detach slow >/dev/null
q volume delete slow >/dev/null
q volume create slow --size 1M >/dev/null
q volume attach slow --nbd >/dev/null
kill -CONT "$import"
status=0
wait "$import" || status=$?
is "exit status" "$status" 1
holds grep -q "; volume 'slow' was deleted meanwhile, and the one that has its name now is left alone$" "$dir/said"
holds attached
q volume detach slow >/dev/null
q volume delete slow >/dev/null
same

say "output that is not taken"
status=0
q volume list >/dev/full 2>"$dir/said" || status=$?
is "exit status" "$status" 1
holds grep -q 'cannot write the output: No space left' "$dir/said"

say "completion and help are those of the table"
q completion bash | cmp - "$top/completion/quarry.bash" || fail "run: quarry completion bash >completion/quarry.bash"
q completion zsh | cmp - "$top/completion/_quarry" || fail "run: quarry completion zsh >completion/_quarry"
complete_line() { # WORDS ...: what bash offers for the last one
	PATH=$BUILD:$PATH bash -c '. "$0"; COMP_WORDS=(quarry "$@"); COMP_CWORD=$#; _quarry; echo ${COMPREPLY[*]}' \
		"$top/completion/quarry.bash" "$@" 2>/dev/null
}
is "nouns" "$(complete_line d)" disk
is "verbs" "$(complete_line volume re)" "resize rename"
is "options" "$(complete_line volume create x --si)" --size
is "volumes" "$(complete_line volume show i)" "i1 i2"
is "choices" "$(complete_line pool create p --failure-domain r)" rack
is "behind an option" "$(complete_line --socket /x vol)" volume
is "nodes" "$(complete_line node show '')" n1
is "files" "$(complete_line disk check "$top/Makef")" "$top/Makefile"
is "the last noun" "$(complete_line clus)" cluster
is "nothing unknown" "$(complete_line zz)" ""
expect 0 'usage: quarry volume create NAME --size SIZE' q volume create --help
expect 0 'usage: quarry volume create NAME --size SIZE' q help volume create
expect 0 '^quarry volume' q --help
q --help >"$dir/said"
holds sh -c '! grep -q takeover "$1"' - "$dir/said"
expect 0 'usage: quarry node drain NODE' q node drain --help
if command -v zsh >/dev/null; then
	holds zsh -n "$top/completion/_quarry"
fi

passed
