#!/bin/bash
# limit: 120
# bad-input.sh: every wrong word, size, name, path and key gets a message that names it, the right exit status, and changes
# nothing.
. "$(dirname "$0")/lib.sh"
require jq
daemon_begin
disk_make d1 256M
volume_make v1 64M
nbd "$(uri v1)" 'h.pwrite(b"v" * 65536, 0)'

everything() { q --json volume list | jq -S '[.volumes[] | {name, size_bytes, attachments}]'; q --json pool list | jq -S '[.pools[] | .name]'
	q --json disk list | jq -S '[.disks[] | .name]'; }
everything >"$dir/before"

say "the command: wrong usage is 2 and names the word"
while IFS='|' read -r pattern words; do
	# shellcheck disable=SC2086 # words of a command
	expect 2 "$pattern" q $words
done <<'END'
frobnicate|frobnicate
volum|volum list
lst|volume lst
size|volume create x
size|volume create x --size
tenG|volume create x --size tenG
5Q|volume create x --size 5Q
1e3|volume create x --size 1e3
--sizes|volume create x --sizes 5G
extra|volume list extra
--nope|status --nope
replicas|volume create x --size 1G --replicas none
99999999999999999999|volume create x --size 99999999999999999999
8388608T|volume create x --size 8388608T
rack7|pool create p --failure-domain rack7
END

say "the daemon: refused is 1, with one line"
while IFS='|' read -r pattern words; do
	# shellcheck disable=SC2086
	expect 1 "$pattern" q $words
	is "lines said by: $words" "$(wc -l <"$dir/said")" 1
done <<'END'
no volume 'nothing'; see 'quarry volume list'$|volume show nothing
no volume 'nothing'; see 'quarry volume list'$|volume delete nothing
no volume 'nothing'; see 'quarry volume list'$|volume attach nothing --nbd
no volume 'nothing'; see 'quarry volume list'$|volume resize nothing 1G
no volume 'nothing'; see 'quarry volume list'$|snapshot list nothing
no volume 'nothing'; see 'quarry volume list'$|snapshot create nothing@s
no snapshot 'v1@nothing'; see 'quarry snapshot list'$|snapshot rollback v1@nothing
no snapshot 'v1@nothing'; see 'quarry snapshot list'$|snapshot diff v1@nothing
no snapshot 'v1@nothing'; see 'quarry snapshot list'$|snapshot show v1@nothing
no snapshot 'v1@nothing'; see 'quarry snapshot list'$|volume attach v1@nothing --nbd
no disk 'nothing'; see 'quarry disk list'$|disk show nothing
no disk 'nothing'; see 'quarry disk list'$|disk remove nothing
no disk '/nothing'; see 'quarry disk list'$|disk show /nothing
no pool 'nothing'; see 'quarry pool list'$|pool show nothing
no pool 'nothing'; see 'quarry pool list'$|pool delete nothing
no node 'nothing'; see 'quarry node list'$|node show nothing
no pool 'nothing'; see 'quarry pool list'$|volume create x --size 1G --pool nothing
64M in pool|volume create v1 --size 65M
beyond 32K|volume resize v1 32K
attach|volume delete v1
default|pool delete default
--size .1000. must be a multiple of 512|volume create x --size 1000
--size .8191T. must be .* at most 4096T|volume create x --size 8191T
SIZE .1000. must be a multiple of 512|volume resize v1 1000
replic|volume create x --size 1G --replicas 2
no snapshot|snapshot show v1@s1
no snapshot|volume clone v1@s1 v2
nothing|snapshot create nothing@s
repository|backup list /tmp
END

say "sizes of disks are said as they were typed"
expect 1 "$dir/small.img is too small for a disk: it has 8M, and a disk needs at least 16M" q disk add "$dir/small.img" --size 8M
expect 1 'a disk of 32769K is not possible: the size is a multiple of 4K' \
	q disk add "$dir/small.img" --size 33555456
expect 2 'too large; the largest size is' q disk add "$dir/small.img" --size 8388608T
holds test ! -e "$dir/small.img"
expect 1 "$dir/small.img does not exist: give the size of the file to make, such as --size 10G$" q disk add "$dir/small.img"

say "a file that is refused is no matter of the cluster"
head -c 32M /dev/urandom >"$dir/foreign.img"
expect 1 "$dir/foreign.img holds data" q disk add "$dir/foreign.img"
is "events of it" "$(json '[.events[] | select(.code == "disk-unusable")] | length' events)" 0
expect 1 "the folder of $dir/none/d.img is not there" q disk add "$dir/none/d.img" --size 64M

say "names"
for name in .hidden -dash 'a b' 'a/b' "$(printf 'x%.0s' $(seq 64))" 'v1@s' 'ü' '..' ''; do
	status=0
	q volume create --size 1G -- "$name" >"$dir/said" 2>&1 || status=$?
	holds test "$status" -ge 1
	holds test -s "$dir/said"
done
for name in a A.b_c-d 9 "$(printf 'x%.0s' $(seq 63))"; do
	expect 0 '' q volume create "$name" --size 1M
	expect 0 '' q volume create "$name" --size 1M
	expect 1 '' q volume create "$name" --size 2M
	expect 0 '' q volume delete "$name"
done
gone() { everything | cmp -s - "$dir/before"; }
until_true 10 gone

say "no daemon there"
expect 1 'quarryd|daemon' q --socket "$dir/nothing.sock" status
expect 1 '' q --socket "$dir/quarry.conf" status

say "the configuration: --check-config exits 2, with file and line"
daemon_stop
conf() { printf '%s\n' "$@" >"$dir/bad.conf"; }
refuses() { # PATTERN: with file and line
	expect 2 "bad.conf:[0-9]+.*$1|$1.*bad.conf" "$quarryd" --config "$dir/bad.conf" --check-config
	expect 2 '' "$quarryd" --config "$dir/bad.conf"
}
conf 'node = { };'; refuses 'name'
conf 'node = { name = "n"; };' 'colour = "blue";'; refuses 'colour'
conf 'node = { name = "n"; cach_mb = 5; };'; refuses 'cach_mb'
conf 'node = { name = "n"; cache_mb = "many"; };'; refuses 'cache_mb'
conf 'node = { name = "n"; cache_mb = -5; };'; refuses 'cache_mb'
conf 'node = { name = 5; };'; refuses 'name'
conf 'node = { name = "n"'; refuses 'syntax|expected|error'
conf 'node = { name = "a/b"; };'; refuses 'name'
conf 'node = { name = "n"; };' 'log = { level = "loud"; };'; refuses 'level'
conf 'node = { name = "n"; };' 'nbd = { listen = "nowhere"; };'; refuses 'listen'
conf 'node = { name = "n"; };' 'nbd = { max_connections = 0; };'; refuses 'max_connections'
conf 'node = { name = "n"; };' 'control = { listen = "127.0.0.1:1"; };'; refuses 'token_file'
conf 'node = { name = "n"; };' 'metadata = { backend = "etcd"; };'; refuses 'backend|etcd'

say "the configuration: files and folders that would refuse a start"
with() { # VHOST-DIR CONTROL NBD: beside what is right
	conf "node = { name = \"n\"; data_dir = \"$dir/data2\"; };" "control = { socket = \"$dir/c2.sock\"; $2 };" \
		"nbd = { socket = \"$dir/n2.sock\"; $3 };" "vhost = { dir = \"$1\"; };"
}
with "$dir/v2" '' ''
expect 0 'nothing is wrong' "$quarryd" --config "$dir/bad.conf" --check-config
holds test ! -e "$dir/data2"
while IFS='|' read -r pattern vhost control nbd; do
	with "$vhost" "$control" "$nbd"
	expect 2 "bad.conf:[0-9]+: $pattern" "$quarryd" --config "$dir/bad.conf" --check-config
	expect 1 'cannot start' timeout 10 "$quarryd" --config "$dir/bad.conf"
done <<END
nbd.cert_dir: .*/none/|$dir/v2||tls = "on"; cert_dir = "$dir/none";
nbd.psk_file: .*/none|$dir/v2||tls = "require"; psk_file = "$dir/none";
control.token_file: .*/none|$dir/v2|listen = "127.0.0.1:9"; token_file = "$dir/none";|
vhost.dir: .*/bad.conf: Not a directory|$dir/bad.conf/v||
END
with "/$(printf 'x%.0s' $(seq 101))" '' ''
expect 0 'warning: vhost.dir: no volume can be attached' "$quarryd" --config "$dir/bad.conf" --check-config

expect 2 'nothing.conf' "$quarryd" --config "$dir/nothing.conf"
expect 2 '' "$quarryd" --nonsense
expect 2 'config' "$quarryd"
expect 0 '' "$quarryd" --config "$dir/quarry.conf" --check-config
expect '2' '' "$quarryd" --check-disk
expect 1 '' "$quarryd" --check-disk "$dir/quarry.conf"

say "nothing of all that changed anything"
daemon_start
everything >"$dir/after"
holds cmp "$dir/before" "$dir/after"
nbd "$(uri v1)" 'assert h.pread(65536, 0) == b"v" * 65536'

say "the control socket: what is no HTTP, no JSON, too long or unknown"
curl_is() { # STATUS OPTIONS ...
	local want=$1
	shift
	is "HTTP status of curl $*" "$(curl -s -o "$dir/answer" -w '%{http_code}' --unix-socket "$dir/control.sock" "$@")" "$want"
	[ "${want:0:1}" = 2 ] || jq -e '.error.code and .error.message' "$dir/answer" >/dev/null || fail "no error object: $(cat "$dir/answer")"
}
api=http://localhost/v1
curl_is 200 $api/version
curl_is 404 $api/nothing
curl_is 404 $api/volumes/nothing
curl_is 405 -X DELETE $api/volumes
curl_is 400 -X POST -d '{"name": "x"' $api/volumes
curl_is 400 -X POST -d '[]' $api/volumes
curl_is 400 -X POST -d '{"name": "x", "size_bytes": "1G"}' $api/volumes
curl_is 400 -X POST -d '{"name": "x", "size_bytes": 1048576, "colour": 1}' $api/volumes
curl_is 400 -X POST -d '{"size_bytes": 1048576}' $api/volumes
head -c 200000 /dev/zero | tr '\0' 'a' >"$dir/long"
curl_is 413 -X POST -d "@$dir/long" $api/volumes
printf 'hello\r\n\r\n\0\1\2' | timeout 5 /usr/bin/python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
s.settimeout(4)
s.recv(4096)' "$dir/control.sock" || true
curl_is 200 $api/status

say "a disk larger than the daemon's files may be"
daemon_stop
WRAP="prlimit --fsize=$((1 << 30))" daemon_start
expect 1 'has no room' q disk add "$dir/disks/large.img" --size 2G
curl_is 200 $api/status
passed
