#!/bin/bash
# limit: 300
# history-model.sh [ROUNDS]: random writes, snapshots, rollbacks, clones, resizes, deletes, lazy restores on a real daemon,
# held against a model in memory through libnbd; it is stopped or killed between the rounds, and its disks are checked.
. "$(dirname "$0")/lib.sh"
require python3
python3 -c 'import nbd' 2>/dev/null || skip "python3-libnbd is not installed"
rounds=${1:-5}
seed=${SEED:-$RANDOM}
say "seed $seed"
daemon_begin
disk_make d1 256M
disk_make d2 256M
for round in $(seq "$rounds"); do
	expect 0 'hold' "$here/history_model.py" "$BUILD/quarry" "$dir/nbd.sock" "$dir/state" "$dir/repo" $((seed + round)) 40
	cat "$dir/said"
	how=$([ $((round % 2)) = 0 ] && echo stop || echo kill)
	"daemon_$how"
	for image in "$dir"/disks/*.img; do
		expect 0 '' q disk check "$image"
	done
	daemon_start
	expect 0 'hold' "$here/history_model.py" "$BUILD/quarry" "$dir/nbd.sock" "$dir/state" "$dir/repo" "$seed" 0
done
passed
