#!/bin/bash
# limit: 240
# vhost-basic.sh: a volume over vhost-user as a guest uses it: every request in every layout, both kinds of rings, several
# queues; what the device says of itself; read-only; a resize; a reset by a guest that boots.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vhost-lib.sh"
require jq nbdcopy
daemon_begin
disk_make d1 2G
require_vhost
probe=$BUILD/vhost-probe
vhost_make v1 64M --queues 4
s=$(vhost_socket v1)

say "what it says of itself"
expect 0 '^capacity 131072$' "$probe" "$s" config
cp "$dir/said" "$dir/config"
# guests flush only where the write cache is reported; firmware reads a size_max of 0 as 0
for line in 'wce 1' 'blk_size 512' 'physical_block_exp 3' 'num_queues 4'; do
	expect 0 "^$line\$" cat "$dir/config"
done
expect 1 '' grep -E '^(seg_max|max_discard_sectors|max_discard_seg|max_write_zeroes_sectors|max_write_zeroes_seg|memory_slots) 0$' \
	"$dir/config"
features=$(sed -n 's/^features //p' "$dir/config") protocol=$(sed -n 's/^protocol_features //p' "$dir/config")
for bit in 2 6 9 10 12 13 14 26 28 29 30 32 34; do
	holds test $((features >> bit & 1)) = 1
done
is "SIZE_MAX, RO" $((features >> 1 & 1))$((features >> 5 & 1)) 00
for bit in 0 1 3 5 9 12 13 15; do
	holds test $((protocol >> bit & 1)) = 1
done

for ring in "" --packed; do
	for queues in 1 4; do
		for regions in 1 5; do
			say "requests ${ring:-split} over $queues queues, $regions regions"
			# shellcheck disable=SC2086 # an option or none
			expect 0 'checks$' "$probe" $ring --queues $queues --regions $regions --seed $((queues + regions)) "$s" requests
		done
	done
	say "a guest boots: firmware, reset, system"
	# shellcheck disable=SC2086
	expect 0 'checks$' "$probe" $ring "$s" firmware
done
expect 0 "id $(json '.uuid' volume show v1 | tr -d - | cut -c 1-8)" "$probe" "$s" requests

say "NBD reads what was written"
q volume detach v1 >/dev/null
q volume attach v1 --nbd >/dev/null
nbdcopy "$(uri v1)" "$dir/image"
holds test "$(head -c 1M "$dir/image" | tr -d '\0' | wc -c)" -gt 1000
q volume detach v1 >/dev/null

say "read-only"
q volume attach v1 --vhost-user --read-only >/dev/null
expect 0 'checks$' "$probe" "$s" read-only
q volume detach v1 >/dev/null
q volume attach v1 --nbd >/dev/null
holds cmp "$dir/image" <(nbdcopy "$(uri v1)" -)

say "a snapshot, by way of a clone that is only read"
q snapshot create v1@s1 >/dev/null
expect 1 'cannot be attached as "vhost-user"' q volume attach v1@s1 --vhost-user
q volume clone v1@s1 c1 >/dev/null
q volume attach c1 --vhost-user --read-only >/dev/null
expect 0 'checks$' "$probe" "$(vhost_socket c1)" read-only
q volume detach c1 >/dev/null
q volume attach c1 --nbd >/dev/null
holds cmp "$dir/image" <(nbdcopy "$(uri c1)" -)

say "a client that runs is told of a resize"
vhost_make v2 64M
"$probe" "$(vhost_socket v2)" notice 196608 >"$dir/notice" 2>&1 &
pid=$!
others+=("$pid")
until_true 10 grep -q ready "$dir/notice"
is "clients" "$(json '.attachments[0].clients' volume show v2)$(json '.attachments[0].clients' volume show v1)" 10
expect 0 'vhost clients: *1' q volume show v2
q volume resize v2 96M >/dev/null
wait $pid || fail "the notice: $(cat "$dir/notice")"
expect 0 'checks$' cat "$dir/notice"
expect 0 'vhost-client-connected' q --json events
expect 0 'vhost-client-disconnected' q --json events
passed
