#!/bin/bash
# limit: 120
# fio-jobs.sh: every job file that users are given runs, cut to a second: against nbdkit for its own sake, then against a volume.
. "$(dirname "$0")/lib.sh"
require fio nbdkit
n_jobs=0

run_all() {
	local job
	for job in "$top"/fio-jobs/*.fio; do
		sed 's/^runtime=.*/runtime=1/; s/^ramp_time=.*/ramp_time=0/' "$job" >"$dir/job.fio"
		expect 0 'err= 0' fio "$dir/job.fio"
		n_jobs=$((n_jobs + 1))
	done
}

say "nbdkit"
nbdkit -f -U "$dir/nbdkit.sock" memory 300M &
others+=($!)
until_true 10 test -S "$dir/nbdkit.sock"
export URI="nbd+unix:///?socket=$dir/nbdkit.sock"
run_all
is "jobs" "$n_jobs" 8

say "the header of each says how to run it"
for job in "$top"/fio-jobs/*.fio; do
	expect 0 "fio .*${job##*/}" grep -E '^#.*fio ' "$job"
	expect 0 'OVERWRITES|stays as it is' cat "$job"
done

say "in a guest, a block device takes the server's place: the command of each header, on a file"
truncate -s 300M "$dir/disk"
for job in "$top"/fio-jobs/*.fio; do
	command=$(sed -n 's/^# *\(sed .*\) [a-z0-9-]*\.fio | fio -$/\1/p' "$job" | sed "s|/dev/vdX|$dir/disk|")
	[ -n "$command" ] || fail "${job##*/} does not say how to run it in a guest"
	eval "$command" '"$job"' | sed 's/^runtime=.*/runtime=1/; s/^ramp_time=.*/ramp_time=0/' >"$dir/job.fio"
	expect 0 'err= 0' fio "$dir/job.fio"
	expect 1 '' grep -E '^(ioengine=nbd|uri=)' "$dir/job.fio"
done

if [ -x "$quarryd" ]; then
	say "quarry"
	daemon_begin
	disk_make d1 2G
	volume_make v1 300M
	URI=$(uri v1)
	run_all
fi
passed
