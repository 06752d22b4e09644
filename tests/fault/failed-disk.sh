#!/bin/bash
# limit: 120
# failed-disk.sh: writes below a disk fail, its file system is full, its device is pulled out, all under load: nothing
# more is acknowledged there, an event and `status` name the disk and say what to do, the other disk's volume goes on; when
# the device is mended, `disk add` or a restart brings the disk back with every write that was acknowledged.
. "$(dirname "$0")/fault-lib.sh"
require_faults
CACHE_MB=128 daemon_begin
q pool create bad >/dev/null
q pool create good >/dev/null
disk_make good 256M --pool good
n_others=0

# Another disk's volume does its work meanwhile.
others_go_on() {
	n_others=$((n_others + 1))
	volume_make "other$n_others" 64M --pool good
	printf 'load 400\nverify\n' | "$BUILD/tests/e2e/loadgen" --window-mib 2 "$(uri "other$n_others")" >"$dir/other"
	holds grep -q '^verified' "$dir/other"
	n_checks=$((n_checks + 1))
}

# Adds a disk of this device, and a volume with a load.
begin() { # NAME DISK
	name=$1 disk=$2
	expect 0 '' q disk add "$device" --pool bad
	is "the disk of $name" "$(json ".disks[] | select(.path == \"$device\") | .name" disk list)" "$disk"
	volume_make "$name" 64M --pool bad
	failing_load_begin "$(uri "$name")"
	load_tell load
	load_hear loading
}

# The load has ended with an error; what must hold now.
has_failed() { # PATTERN: of the event
	load_hear lost
	echo "   $heard"
	disk_has_failed "$disk" "$1"
	volume_answers_eio "$name"
	others_go_on
}

is_back() {
	until_true 20 is_state "$disk" running
	load_tell verify
	load_hear verified
	echo "   $heard"
	load_tell load 300
	load_hear loading
	load_hear 'done'
	load_tell verify
	load_hear verified
	load_end
	expect 0 '' q status
}

# By the path alone, though it is in a pool of its own.
opened_by_command() {
	expect 0 '' q disk add "$device"
	volume_anew "$name"
	is_back
}

opened_by_restart() {
	daemon_restart
	is_back
}

gone() {
	q volume detach "$name"
	q volume delete "$name" >/dev/null
	is_deleted() { ! q volume show "$name"; }
	until_true 20 is_deleted
	expect 0 '' q disk remove "$disk"
}

say "a write fails"
faulty_begin d2 256M
begin v1 n1-d2
break_ d2 pwrite
has_failed 'n1-d2: writing .* failed: Input/output error: see to the device, then .quarry disk add. its path'
expect 1 'n1-d2' q disk add "$device" # it is no better yet
mend d2 pwrite
opened_by_command
gone

say "the file system below is full"
ERRNO=ENOSPC faulty_begin d3 256M
begin v2 n1-d2
break_ d3 pwrite
has_failed 'n1-d2: writing .* failed: no space is left on the file system .*: make room there'
mend d3 pwrite
opened_by_restart
gone

say "the device is pulled out, and put back"
faulty_begin d4 256M
begin v3 n1-d2
faulty_down d4
has_failed 'n1-d2: .* failed: .*see to the device'
expect 1 'n1-d2' q disk add "$device"
faulty_begin d4 256M
opened_by_command
gone

if [ "$(id -u)" = 0 ]; then
	faulty_begin d5 256M
	if loop=$(losetup --find --show --direct-io=on "$device" 2>/dev/null); then
		say "a block device, $loop, of which writes fail"
		loops+=("$loop")
		device=$loop
		begin v4 n1-d2
		break_ d5 pwrite
		has_failed 'n1-d2: (writing|flushing) .* failed: Input/output error'
		mend d5 pwrite
		opened_by_command # which the kernel still holds for the disk that was closed
		failing_load_begin "$(uri other4)"
		load_end
		daemon_kill # and for a killed daemon
		daemon_start
		is "the device" "$(disk_state n1-d2)" running
		gone
	fi
fi
daemon_stop
for image in "$dir"/disks/*.img "$dir"/d?.img; do
	expect 0 '' q disk check "$image"
done
passed
