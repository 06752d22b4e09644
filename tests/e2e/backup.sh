#!/bin/bash
# limit: 400
# backup.sh [ROUNDS]: backups of snapshots into a repository, against the stand-in for the daemon (cli_fake.py), whose
# snapshots qemu-nbd serves: full and incremental, restored and compared; every file of a repository damaged and removed
# in turn; killed at random moments; encrypted; pruned; with limits.
. "$(dirname "$0")/lib.sh"
require jq nbdkit qemu-img qemu-nbd nbdsh script
[ -x "$BUILD/quarry" ] || skip "quarry is not built"
rounds=${1:-6}
mkdir "$dir/fake"
"$here/cli_fake.py" "$dir/control.sock" "$dir/fake" 2>"$dir/fake.log" &
others+=($!)
until_true 10 test -S "$dir/control.sock"
repo=$dir/repo
data() { echo "$dir/fake/$1.data"; }

# Puts random bytes into a volume: put VOLUME OFFSET_KIB LENGTH_KIB; hole makes them zero.
put() { head -c "$(($3 << 10))" /dev/urandom | dd of="$(data "$1")" bs=1K seek="$2" conv=notrunc status=none; }
hole() { fallocate -p -o "$(($2 << 10))" -l "$(($3 << 10))" "$(data "$1")"; }
# A snapshot, and what is to be found in it.
snapshot() { # VOLUME SNAPSHOT [CREATED_AT]
	curl -sf --unix-socket "$QUARRY_SOCKET" "http://localhost/v1/volumes/$1/snapshots" \
		-d "{\"name\": \"$2\"${3:+, \"created_at\": \"$3\"}}" >/dev/null
	cp --sparse=always "$(data "$1")" "$dir/$1@$2"
}
snapshot_delete() { curl -sf --unix-socket "$QUARRY_SOCKET" -X DELETE "http://localhost/v1/volumes/$1/snapshots/$2" >/dev/null; }
backup() { q --json backup create "$@" >"$dir/answer"; }
told() { jq -r ".$1" "$dir/answer"; }
# Two files of the same size and bytes; nobody reads their holes.
same() { [ "$(stat -c %s "$1")" = "$(stat -c %s "$2")" ] && qemu-img compare -q -f raw -F raw "$1" "$2"; }
# Restores a backup, compares, deletes the volume again. restores TITLE [REPOSITORY [OPTIONS ...]]
restores() {
	local title=$1 from=${2:-$repo}
	q backup restore "$from/$title" restored "${@:3}" >/dev/null || return 1
	same "$(data restored)" "$dir/$title" || return 1
	q volume delete restored >/dev/null
}

say "a full backup, and one of what has changed"
q volume create v --size 200M >/dev/null
put v 0 3000
put v 100000 20
put v 204796 4
snapshot v s1
expect 0 "^backed up 'v@s1', 3M of data: .* read, .* stored" q backup create v@s1 "$repo"
holds restores v@s1
put v 1000 4
put v 100012 8
put v 150000 1
hole v 2000 400
snapshot v s2
backup v@s2 "$repo"
is "the base" "$(told base)" s1
is "bytes read" "$(told read_bytes)" $((4 * 4096))
holds restores v@s2
holds restores v@s1
is "left attached" "$(curl -sf --unix-socket "$QUARRY_SOCKET" http://localhost/v1/volumes/v/snapshots |
	jq '[.snapshots[].attachments[]] | length')" 0
expect 0 "backup 'v@s2' is in '$repo' already; nothing changed" q backup create v@s2 "$repo"
is "told again" "$(q --json backup create v@s2 "$repo" | jq -c '[.snapshot, .read_bytes, .elapsed_ms, .unchanged]')" \
	'["s2",16384,0,true]'
expect 0 '^v@s2 +.* s1$' q backup list "$repo"
is "backups" "$(q --json backup list "$repo" | jq -c '[.backups[].snapshot]')" '["s1","s2"]'
q --json backup verify "$repo" >"$dir/answer"
is "sound" "$(told sound)" true
q backup restore "$repo" newest >/dev/null
holds same "$(data newest)" "$dir/v@s2"
holds test "$(stat -c %b "$(data newest)")" -lt 8000
q volume delete newest >/dev/null

say "without knowledge of changes, what is there is not stored again"
touch "$dir/fake/no-changes"
put v 60000 100
snapshot v s3
backup v@s3 "$repo"
is "the base" "$(told base)" ""
holds test "$(told read_bytes)" -gt 2000000
holds test "$(told stored_bytes)" -lt 3300000
rm "$dir/fake/no-changes"
holds restores v@s3

say "the newest backup whose snapshot is still there is the base, also when its name was used again"
snapshot_delete v s3
put v 70000 4
snapshot v s4
backup v@s4 "$repo"
is "the base" "$(told base)" s2
snapshot_delete v s4
snapshot v s4
put v 70000 4
snapshot v s5
backup v@s5 "$repo"
is "the base" "$(told base)" s2
holds restores v@s4
holds restores v@s5

say "a volume that has grown, and shrunk"
q volume resize v 210M >/dev/null
put v 204800 40
put v 215000 40
snapshot v s6
backup v@s6 "$repo"
is "the base" "$(told base)" s5
holds restores v@s6
q volume resize v 199M --force >/dev/null
put v 100 4
snapshot v s7
backup v@s7 "$repo"
is "the base" "$(told base)" s6
is "bytes read" "$(told read_bytes)" 4096
holds restores v@s7
is "bytes of data" "$(told data_bytes)" "$(q --json backup restore "$repo/v@s7" r7 | jq .written_bytes)"
q volume delete r7 >/dev/null

say "equal data of another volume is not stored again"
q volume create w --size 200M >/dev/null
cp --sparse=always "$dir/v@s2" "$(data w)"
snapshot w s1
backup w@s1 "$repo"
holds test "$(told stored_bytes)" -lt 20000
holds restores w@s1
expect 1 'has backups of several volumes; name one' q backup restore "$repo" x

say "what is refused"
expect 2 "NAME@SNAP 'v' is not the name of a snapshot" q backup create v "$repo"
expect 1 "no snapshot 'v@nothing'" q backup create v@nothing "$dir/never"
expect 1 "no volume 'nothing'" q backup create nothing@s1 "$dir/never"
holds test ! -e "$dir/never"
expect 1 "no repository '$dir/never'" q backup list "$dir/never"
expect 1 "no backup 'v@nothing' in" q backup restore "$repo/v@nothing" x
expect 1 "no repository '$repo/v'; one backup in a repository is REPOSITORY/NAME@SNAP" q backup restore "$repo/v" x
expect 2 "'200' is 200 bytes a second; give at least 64K" q backup create v@s7 "$dir/never" --rate-limit 200
expect 1 "volume 'v' exists" q backup restore "$repo/v@s1" v
mkdir "$dir/empty" "$dir/foreign"
echo hello >"$dir/foreign/mine"
expect 1 'is empty' q backup verify "$dir/empty"
expect 1 'is not a backup repository.*name a new or an empty' q backup create v@s7 "$dir/foreign"
expect 1 'is not a backup repository' q backup prune "$dir/foreign" --keep-last 1
is "left alone" "$(ls "$dir/foreign")" mine
expect 1 'cannot make the directory .*; make the folder above it first' q backup create v@s7 "$dir/no/such"
expect 1 'Not a directory' q backup list "$dir/foreign/mine"
expect 2 'say what to keep' q backup prune "$repo"
later=$dir/later
cp -r "$repo" "$later"
line=$(head -n 1 "$repo/repository" | sed 's/"version":1/"version":2/')
seal_line() { printf '%s\n%s\n' "$1" "$(printf %s "$1" | b2sum -l 256 | cut -d ' ' -f 1)"; }
seal_line "$line" | tee "$later/repository" >"$later/repository.copy"
expect 1 'has version 2, this release knows 1; use the release that made it' q backup list "$later"
line=$(head -n 1 "$repo/repository" | sed 's/"zstd"/"zstd","teleport"/')
seal_line "$line" | tee "$later/repository" >"$later/repository.copy"
expect 1 "needs 'teleport', which this release does not know" q backup restore "$later/v@s1" x
line=$(head -n 1 "$repo/repository")
seal_line "$line" | tee "$later/repository" >"$later/repository.copy"
expect 0 'v@s7 +whole' q backup verify "$later"
seal_line "$(head -n 1 "$repo/repository" | jq -c '.id |= .[1:] + .[:1]')" >"$later/repository"
expect 1 "are of two repositories; take away the one" q backup restore "$later/v@s1" x
expect 1 "are of two repositories" q backup prune "$later" --keep-last 1 --force
rm "$later/repository"
holds restores v@s1 "$later" 2>/dev/null
rm -r "$later"

say "names that nobody should have given"
odd=$dir/$'odd\xff'
cp -r "$repo" "$odd"
expect 0 'whole' q --json backup verify "$odd"
expect 0 'v@s7|"s7"' q --json backup list "$odd"
expect 0 'removed_packs' q --json backup prune "$odd" --keep-last 100
expect 0 'written_bytes' q --json backup restore "$odd/v@s1" odd
q volume delete odd >/dev/null
touch "$odd/packs/"$'\e[31m\xff'
expect 1 "'packs/.\[31m.' is damaged" q backup verify "$odd"
expect 1 '"packs/.\[31m."' q --json backup verify "$odd"
holds test -z "$(q backup list "$odd" 2>&1 | tr -dc '\033')"
rm -r "$odd"

say "one writer at a time; a lock left behind is taken over"
echo garbage >"$repo/lock"
expect 1 "'$repo/lock' does not say who writes in the repository; remove it" q backup prune "$repo" --keep-last 100
ln -sf nowhere "$repo/lock"
expect 1 "'$repo/lock' does not say who writes" q backup prune "$repo" --keep-last 100
rm "$repo/lock"
write_lock() { # BOOT PID START AT
	printf '{"token":"x","host":"%s","boot":"%s","pid":%s,"start":%s,"at":%s}' "$5" "$1" "$2" "$3" "$4" >"$repo/lock"
}
boot="$(cat /proc/sys/kernel/random/boot_id) $(readlink /proc/self/ns/pid)"
start=$(awk '{ print $22 }' /proc/$$/stat)
put v 100 4
snapshot v s8
write_lock "$boot" $$ "$start" 1 "$(hostname)"
expect 1 "in use by process $$ on" q backup create v@s8 "$repo"
expect 1 'in use by process' q backup prune "$repo" --keep-last 1
expect 0 'v@s7' q backup list "$repo"
write_lock elsewhere 1 1 "$(date +%s)" other
expect 1 "in use by process 1 on 'other'; wait for its end, or remove '$repo/lock'" q backup create v@s8 "$repo"
coproc ended { exec /usr/bin/python3 -c 'import os, sys; p = os.fork(); p or os._exit(0); os.waitid(os.P_PID, p,
	os.WEXITED | os.WNOWAIT); print(p, flush=True); sys.stdin.read()'; }
others+=("$ended_PID")
read -r zombie <&"${ended[0]}"
write_lock "$boot" "$zombie" "$(awk '{ print $22 }' "/proc/$zombie/stat")" 1 "$(hostname)"
expect 0 'kept' q backup prune "$repo" --keep-last 100
kill "$ended_PID"
write_lock "$boot" $$ 1 1 "$(hostname)"
expect 0 'backed up' q backup create v@s8 "$repo"
holds test ! -e "$repo/lock"
for stale in 'an-earlier-boot x' elsewhere; do
	put v 100 4
	snapshot v "l${#stale}"
	[ "$stale" = elsewhere ] && write_lock "$stale" 1 1 1000 other || write_lock "$stale" 1 1 "$(date +%s)" "$(hostname)"
	expect 0 'backed up' q backup create "v@l${#stale}" "$repo"
done

say "read beside a writer: what comes or goes is no damage"
beside=$dir/beside
q backup create v@s8 "$beside" >/dev/null
record=$(find "$beside/backups" -name '*.copy')
for gone in "$record" "${record%.copy}"; do
	mv "$gone" "$dir/gone"
	repo=$beside write_lock "$boot" $$ "$start" 1 "$(hostname)"
	expect 0 'v@s8 +whole' q backup verify "$beside"
	is "warned" "$(q backup list "$beside" 2>&1 >/dev/null)" ""
	rm "$beside/lock"
	expect 1 'is missing' q backup verify "$beside"
	mv "$dir/gone" "$gone"
done
read_on() { # what is wrong is said
	while [ ! -e "$dir/enough" ]; do
		q backup verify "$beside" 2>&1 >/dev/null || true
		q backup list "$beside" 2>&1 >/dev/null
	done | grep -v 'packs of repository .* were taken away while it was verified' || true
}
read_on >"$dir/read" &
reader=$!
others+=("$reader")
for i in 1 2 3 4 5 6 7 8; do
	put v 100 40
	snapshot v "beside$i"
	q backup create "v@beside$i" "$beside" >/dev/null
	q backup prune "$beside" --keep-last 2 >/dev/null
done
touch "$dir/enough"
wait "$reader"
is "wrong for readers" "$(cat "$dir/read")" ""
writers=()
for i in $(seq 16); do # each tidies up, and leaves alone who is just taking the lock
	"$BUILD/quarry" backup prune "$beside" --keep-last 2 >/dev/null 2>"$dir/writer.$i" &
	writers+=($!)
done
wait "${writers[@]}" || true
mkdir "$beside/packs/tmp-mine"
expect 0 'kept' q backup prune "$beside" --keep-last 2
holds rmdir "$beside/packs/tmp-mine"
is "wrong for writers" "$(cat "$dir"/writer.* | grep -v 'is in use by' || true)" ""
rm -r "$beside" "$dir"/writer.*

say "no permission, no space"
expect 1 'File too large' prlimit --fsize=100 "$BUILD/quarry" backup create v@s8 "$dir/limited"
is "nothing is left over" "$(find "$dir/limited" -type f | wc -l)" 0
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$dir" "$dir/fake"
	chmod 666 "$dir/control.sock"
	chmod -R a+rX "$repo"
	put v 100 4
	snapshot v p1
	expect 1 "in repository '$repo': Permission denied" setpriv --reuid 65534 --clear-groups \
		"$BUILD/quarry" backup create v@p1 "$repo"
	expect 0 'v@s8 +whole' setpriv --reuid 65534 --clear-groups "$BUILD/quarry" backup verify "$repo"
fi
if [ "$(id -u)" = 0 ] && mkdir "$dir/small" && mount -t tmpfs -o size=5M none "$dir/small" 2>/dev/null; then
	mounts+=("$dir/small")
	expect 0 'backed up' q backup create v@s1 "$dir/small"
	put v 100 3000
	snapshot v n1
	expect 1 "is full .*free space there or" q backup create v@n1 "$dir/small"
	holds restores v@s1 "$dir/small"
	expect 0 'v@s1 +whole' q backup verify "$dir/small"
	expect 0 'kept' q backup prune "$dir/small" --keep-last 1
	is "nothing is left over" "$(find "$dir/small" -name 'tmp-*' -o -name lock | wc -l)" 0
	mount -o remount,ro "$dir/small"
	expect 1 'Read-only file system' q backup create v@n1 "$dir/small"
	holds restores v@s1 "$dir/small"
	umount "$dir/small"
fi

say "encrypted"
expect 1 "the key file '/dev/urandom' is not a regular file" q backup create v@s1 "$dir/never" --key-file /dev/urandom
head -c 32 /dev/urandom >"$dir/key"
chmod 640 "$dir/key"
head -c 32 /dev/urandom >"$dir/other-key"
echo short >"$dir/short-key"
secret=$dir/secret
expect 1 'fewer than 32 bytes' q backup create v@s1 "$secret" --key-file "$dir/short-key"
expect 1 'cannot read the key file' q backup create v@s1 "$secret" --key-file "$dir/nothing"
holds test ! -e "$secret"
expect 0 "others than its owner may use the key file '$dir/key' \(its mode is 0640\): chmod 600 it" \
	q backup create v@s1 "$secret" --key-file "$dir/key"
chmod 600 "$dir/key"
backup v@s2 "$secret" --key-file "$dir/key" 2>"$dir/said"
is "said of a key that nobody else can read" "$(cat "$dir/said")" ""
is "the base" "$(told base)" s1
is "bytes read" "$(told read_bytes)" $((4 * 4096))
holds restores v@s2 "$secret" --key-file "$dir/key"
expect 0 'v@s1 +whole' q backup verify "$secret" --key-file "$dir/key"
expect 1 'is encrypted; give its key' q backup list "$secret"
expect 1 'is not the key file of repository' q backup restore "$secret/v@s1" x --key-file "$dir/other-key"
expect 1 'is not encrypted; leave --key-file away' q backup list "$repo" --key-file "$dir/key"
holds sh -c '! grep -rqaE "snapshot_id|volume_uuid" "$1"/packs "$1"/backups' - "$secret"
names() { find "$1/packs" "$1/backups" -type f -printf '%f\n' | grep -E '^[0-9a-f]{32}$'; }
is "names in common with the plain repository" "$( (names "$repo" && names "$secret") | sort | uniq -d | wc -l)" 0

say "a rate limit"
q volume create big --size 300M >/dev/null
put big 0 8000
snapshot big s1
backup big@s1 "$dir/rated" --rate-limit 4M
holds test "$(told read_bytes)" -ge $((8000 << 10))
# it may be ahead by a piece of 128 KiB and by 50 ms
holds test $((($(told read_bytes) - (128 << 10)) * 1000)) -le $((($(told elapsed_ms) + 50) * (4 << 20)))
holds restores big@s1 "$dir/rated"
# a pseudo-terminal is looked at
rate='at [0-9.]+M of 300M: [0-9.]+M read, [0-9.]+[KM] stored, [0-9.]+M a second'
expect 0 "$rate" script -qec "'$BUILD/quarry' backup create big@s1 '$dir/shown' --rate-limit 10M" /dev/null
expect 0 '[0-9.]+M? of [0-9.]+M restored, [0-9.]+[KM]? a second' \
	script -qec "'$BUILD/quarry' backup restore '$dir/shown/big@s1' again" /dev/null

say "every file, damaged and removed in turn"
victim=$dir/victim
q volume create d --size 80M >/dev/null
put d 0 600
snapshot d s1
put d 70000 300
snapshot d s2
put d 300 300
snapshot d s3
for s in s1 s2 s3; do
	backup "d@$s" "$victim"
done
n_files=0
while read -r file; do
	n_files=$((n_files + 1))
	ways=(flip cut remove) chosen=${ways[RANDOM % 3]} # those that are whole are restored after this one
	for way in "${ways[@]}"; do
		cp "$victim/$file" "$dir/saved"
		size=$(stat -c %s "$dir/saved")
		case $way in
		flip) /usr/bin/python3 - "$victim/$file" <<-'END'
			import random, sys
			f = open(sys.argv[1], "r+b")
			size = f.seek(0, 2)
			at = random.randrange(size)
			f.seek(at)
			byte = f.read(1)[0]
			f.seek(at)
			f.write(bytes([byte ^ 1 << random.randrange(8)]))
			END
			;;
		cut) truncate -s $((size / 2)) "$victim/$file" ;;
		remove) rm "$victim/$file" ;;
		esac
		status=0
		q --json backup verify "$victim" >"$dir/answer" 2>"$dir/said" || status=$?
		is "the exit status" "$status" 1
		holds grep -q 'is damaged' "$dir/said"
		read -ra states < <(jq -r '[.backups[].state] | join(" ")' "$dir/answer")
		is "backups told of" "${#states[@]}" 3
		n_hurt=0
		for s in 1 2 3; do
			if [ "${states[s - 1]}" != whole ]; then
				n_hurt=$((n_hurt + 1))
				expect 1 'is hurt' q backup restore "$victim/d@s$s" x
			elif [ $way = "$chosen" ]; then
				holds restores "d@s$s" "$victim" 2>/dev/null
			fi
		done
		case $file in
		packs/*) holds test "$n_hurt" -ge 1 ;;
		*) is "backups hurt by $way $file" "$n_hurt" 0 ;;
		esac
		is "left by a failed restore" "$(q --json volume list | jq '[.volumes[] | select(.name == "x" and .state != "deleting")] | length')" 0
		cp "$dir/saved" "$victim/$file"
	done
done < <(cd "$victim" && find . -type f -printf '%P\n')
holds test "$n_files" -ge 11
expect 0 'd@s3 +whole' q backup verify "$victim"
say "what is lost is told exactly: data, and not the holes that a lost map may have had"
q volume create x --size 64M >/dev/null
put x 0 400
put x 40000 100
snapshot x s1
backup x@s1 "$dir/exact"
pack=$(ls "$dir/exact/packs")
mv "$dir/exact/packs/$pack" "$dir/saved"
expect 1 "is damaged: a pack is missing, 1 of 1 backups hurt" q backup verify "$dir/exact"
expect 1 "^x@s1 +hurt +500K$" q backup verify "$dir/exact"
expect 1 "^backup 'x@s1' has lost 512000 bytes of data, somewhere in 67108864 bytes: 0\\+67108864$" q backup verify "$dir/exact"
expect 1 "^a pack is missing" q backup verify "$dir/exact"
q --json backup verify "$dir/exact" >"$dir/answer" 2>/dev/null || true
is "told" "$(told 'pack_missing, .backups[0].lost_bytes' | xargs)" "true 512000"
mv "$dir/saved" "$dir/exact/packs/$pack"
printf x >>"$dir/exact/packs/$pack"
expect 1 "is damaged: 1 file, 1 of 1 backups hurt" q backup verify "$dir/exact"
rm "$dir/exact/packs/$pack"
mkfifo "$dir/exact/packs/$pack" # is not waited for
expect 1 "1 of 1 backups hurt" timeout 60 "$BUILD/quarry" backup verify "$dir/exact"
expect 1 "is hurt" timeout 60 "$BUILD/quarry" backup restore "$dir/exact" fifo

say "a writer mends a second copy; a damaged pack is not built on"
rm "$victim/repository" "$victim/backups/$(ls "$victim/backups" | head -n 1)"
pack=$(ls -S "$victim/packs" | tail -n 1)
rm "$victim/packs/$pack"
put d 40000 4
snapshot d s4
backup d@s4 "$victim" 2>/dev/null
holds restores d@s4 "$victim"
is "files with a problem" "$(q --json backup verify "$victim" 2>/dev/null | jq '.files | length')" 0

say "what is damaged in a pack: nothing is built on it, once it has been given up"
rotten=$dir/rotten
# Flips a bit of a file: of a byte from its begin, or (-N) from the end of a pack's chunks.
flip() {
	/usr/bin/python3 - "$1" "$2" <<-'END'
		import struct, sys
		f = open(sys.argv[1], "r+b")
		data, at = bytearray(f.read()), int(sys.argv[2])
		at += (len(data) - 16 - struct.unpack("<I", data[-16:-12])[0]) * (at < 0)
		data[at] ^= 4
		f.seek(0)
		f.write(data)
	END
}
states() {
	may_answer=$(q --json backup verify "$rotten" 2>/dev/null || true)
	jq -r '[.backups[].state] | join(" ")' <<<"$may_answer"
}
give_up() { q --json backup prune "$rotten" --keep-last 9 --force >"$dir/answer"; }
q volume create r --size 8M >/dev/null
for at in 1000 -20; do # in a chunk of data; in the leaf, which is the last
	rm -rf "$rotten"
	put r 0 900
	snapshot r s1
	backup r@s1 "$rotten"
	flip "$rotten/packs/$(ls "$rotten/packs")" "$at"
	snapshot r s2
	backup r@s2 "$rotten"
	is "verified" "$(states)" "hurt hurt"
	record=$(ls "$rotten/backups" | head -n 1)
	cp "$rotten/backups/$record" "$rotten/backups/$record.old"
	give_up
	is "pieces given up" "$(told given_up_chunks)" $((at > 0))
	is "backups kept" "$(told kept)" "$(jq -n '["r@s1", "r@s2"]')"
	rm "$rotten/backups/$record.old"
	is "verified" "$(states)" "hurt hurt"
	snapshot r s3
	backup r@s3 "$rotten"
	is "verified" "$(states)" "whole whole whole"
	for s in s1 s2 s3; do
		holds restores "r@$s" "$rotten"
		snapshot_delete r $s
	done
done
expect 0 'freed 0' q backup prune "$rotten" --keep-last 9 --force

say "a snapshot of the same name is not the same snapshot"
snapshot r s1
expect 1 "has a backup 'r@s1' already, of another snapshot of that name" q backup create r@s1 "$rotten"
snapshot_delete r s1

say "what gets another meaning while it is attached: no base, and not what was asked for"
q volume create n --size 4M >/dev/null
put n 0 100
snapshot n s1
backup n@s1 "$dir/anew"
put n 200 4
snapshot n s2
echo n@s1 >"$dir/fake/retaken"
backup n@s2 "$dir/anew"
is "the base" "$(told base)" ""
holds restores n@s2 "$dir/anew"
snapshot n s3
echo n@s3 >"$dir/fake/retaken"
expect 1 "'n@s3' is another snapshot now" q backup create n@s3 "$dir/anew"
backup n@s3 "$dir/anew"
is "the base" "$(told base)" s2
holds restores n@s3 "$dir/anew"

say "pruned by rules, what is left restores"
q volume create p --size 50M >/dev/null
n=0
for day in 2025-03-01 2025-03-02 2025-03-02 2025-03-03 2025-03-08 2025-03-09 2025-03-10 2025-03-10; do
	n=$((n + 1))
	put p $((n * 700)) 600
	hole p $((n * 700 - 700)) 500
	snapshot p "n$n" "${day}T0$n:00:00Z"
	backup "p@n$n" "$dir/pruned"
done
before=$(du -sb "$dir/pruned/packs" | cut -f 1)
kept() { q --json backup prune "$dir/pruned" "$@" | jq -r '.kept | join(" ")'; }
is "kept with --keep-last 2" "$(kept --dry-run --keep-last 2)" "p@n7 p@n8"
is "kept with --keep-daily 4" "$(kept --dry-run --keep-daily 4)" "p@n4 p@n5 p@n6 p@n8"
is "kept with --keep-weekly 3" "$(kept --dry-run --keep-weekly 3)" "p@n3 p@n6 p@n8"
is "kept with two rules" "$(kept --dry-run --keep-weekly 1 --keep-last 3)" "p@n6 p@n7 p@n8"
is "backups" "$(q --json backup list "$dir/pruned" | jq '.backups | length')" 8
is "kept" "$(kept --keep-last 1 --keep-weekly 2)" "p@n6 p@n8"
for n in 6 8; do
	holds restores "p@n$n" "$dir/pruned"
done
holds test "$(du -sb "$dir/pruned/packs" | cut -f 1)" -lt $((before * 3 / 4))
expect 0 'whole' q backup verify "$dir/pruned"
is "kept" "$(kept --keep-last 1)" p@n8
put p 40000 4
snapshot p n9
backup p@n9 "$dir/pruned"
is "the base" "$(told base)" n8
holds restores p@n9 "$dir/pruned"

# the clock was set back: what was made last is not what goes first
snapshot p n0 2000-01-01T00:00:00Z
backup p@n0 "$dir/pruned"
is "kept" "$(kept --keep-last 1)" "p@n9 p@n0"
holds restores p@n0 "$dir/pruned"
put p 40000 4
snapshot p n10
backup p@n10 "$dir/pruned"
is "kept" "$(kept --keep-last 1)" p@n10

# a prune that is killed before it removes what it has written again: chunks lie in two packs, of which one is damaged
q volume create h --size 20M >/dev/null
put h 0 1200
snapshot h n1
backup h@n1 "$dir/halfway"
hole h 0 1000
snapshot h n2
backup h@n2 "$dir/halfway"
cp -r "$dir/halfway/packs" "$dir/before"
q backup prune "$dir/halfway" --keep-last 1 >/dev/null
again=$(comm -13 <(ls "$dir/before") <(ls "$dir/halfway/packs"))
old=$(comm -23 <(ls "$dir/before") <(ls "$dir/halfway/packs"))
is "packs written again" "$(wc -w <<<"$again")" 1
holds test -n "$old"
cp "$dir"/before/* "$dir/halfway/packs"
for hurt in "$again" $old; do
	rm -rf "$dir/half"
	cp -r "$dir/halfway" "$dir/half"
	/usr/bin/python3 - "$dir/half/packs/$hurt" <<-'END'
		import struct, sys
		f = open(sys.argv[1], "r+b")
		data = bytearray(f.read())
		end = len(data) - 16 - struct.unpack("<I", data[-16:-12])[0]
		data[24:end:64] = bytes(b ^ 1 for b in data[24:end:64]) # in every chunk
		f.seek(0)
		f.write(data)
	END
	expect 1 "no backup is hurt: 'backup prune --force'" q backup verify "$dir/half"
	holds restores h@n2 "$dir/half"
	expect 0 "kept 'h@n2'" q backup prune "$dir/half" --keep-last 1
	holds restores h@n2 "$dir/half"
	expect 0 "kept 'h@n2'" q backup prune "$dir/half" --keep-last 1 --force
	expect 0 'h@n2 +whole' q backup verify "$dir/half"
	holds restores h@n2 "$dir/half"
done

# packs that are hardly more than their tables: what is written again may be the same pack under the same name
q volume create t --size 1M >/dev/null
for n in 1 2 3 4; do
	{ yes "$n" || true; } | head -c 4096 | dd of="$(data t)" conv=notrunc bs=4096 seek="$n" status=none
	snapshot t "n$n"
	backup "t@n$n" "$dir/tiny"
	q backup prune "$dir/tiny" --keep-last 4 >/dev/null
	holds restores "t@n$n" "$dir/tiny"
done
for keep in 3 2 1; do
	q backup prune "$dir/tiny" --keep-last $keep >/dev/null
	expect 0 't@n4 +whole' q backup verify "$dir/tiny"
	holds restores t@n4 "$dir/tiny"
done

say "killed at random moments, $rounds times: a valid repository, and its chunks are used again"
killed=$dir/killed
q volume create k --size 200M >/dev/null
put k 0 8000
snapshot k s0
started=$(date +%s%N)
backup k@s0 "$killed"
took_ms=$((($(date +%s%N) - started) / 1000000)) # on this machine, now
n_killed=0
for round in $(seq "$rounds"); do
	put k $((round % 25 * 6000)) 3000
	put k $((RANDOM * 5)) 400
	snapshot k "s$round"
	delay=0.$(printf %03d $((RANDOM % (took_ms < 900 ? took_ms : 900))))
	status=0
	timeout --foreground -s KILL "$delay" "$BUILD/quarry" backup create "k@s$round" "$killed" >/dev/null 2>&1 || status=$?
	[ $status = 0 ] || n_killed=$((n_killed + 1))
	if [ $((round % 3)) = 0 ]; then
		timeout --foreground -s KILL "$delay" "$BUILD/quarry" backup prune "$killed" --keep-last 2 >/dev/null 2>&1 || n_killed=$((n_killed + 1))
	fi
	curl -s --unix-socket "$QUARRY_SOCKET" -X DELETE "http://localhost/v1/volumes/k%40s$round/attachments/nbd" >/dev/null
	# a second copy may be missing; no backup is hurt
	q --json backup verify "$killed" >"$dir/answer" 2>/dev/null || true
	is "backups hurt" "$(told 'backups | map(select(.state != "whole")) | length')" 0
	if [ $((round % 5)) = 0 ]; then
		for title in $(told 'backups[] | .volume + "@" + .snapshot'); do
			holds restores "$title" "$killed"
		done
	fi
	[ $round = 1 ] || snapshot_delete k "s$((round - 1))"
done
say "killed $n_killed times"
holds test "$n_killed" -gt $((rounds / 4))
put k 0 4
snapshot k end
backup k@end "$killed"
q backup prune "$killed" --keep-last 2 >/dev/null
holds restores k@end "$killed"
expect 0 'whole' q backup verify "$killed"
is "left over" "$(find "$killed" -name 'tmp-*' -o -name lock | wc -l)" 0

say "interrupted: what was read is not stored again"
q volume create i --size 200M >/dev/null
put i 0 50000
snapshot i s1
"$BUILD/quarry" backup create i@s1 "$dir/interrupted" --rate-limit 40M >/dev/null 2>"$dir/said" &
pid=$!
others+=("$pid")
reading() { [ -e "$dir/interrupted/repository" ] && grep -q . <(find "$dir/interrupted/packs" -type f); }
until_true 10 reading
is "its priority" "$(($(ps -o ni= -p "$pid")))" "$(($(nice) > 10 ? $(nice) : 10))" # clients come first
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
is "exit status" "$status" 1
holds grep -q '^quarry: interrupted; what was read so far is in the repository' "$dir/said"
backup i@s1 "$dir/interrupted"
holds test "$(told stored_bytes)" -lt 45000000
holds restores i@s1 "$dir/interrupted"
passed
