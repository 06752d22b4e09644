#!/bin/bash
# limit: 240
# vhost-basic.sh: a volume over vhost-user as a guest uses it: every request in every layout, both kinds of rings, several
# queues; what the device says of itself; read-only; snapshots; a resize; a reset by a guest that boots.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vhost-lib.sh"
require jq nbdcopy nbdinfo cmp
export MALLOC_PERTURB_=165 # what nobody has set is told as nonsense
daemon_begin
disk_make d1 2G
require_vhost
probe=$BUILD/vhost-probe
vhost_make v1 64M --queues 4
s=$(vhost_socket v1)

clients_begin() { # FILE N COMMAND: N clients that send what the expression of Python says, and stay
	/usr/bin/python3 - "$s" "$2" "$3" >"$1" <<-'END' &
		import socket, sys
		clients = [socket.socket(socket.AF_UNIX) for i in range(int(sys.argv[2]))]
		for c in clients:
		    c.connect(sys.argv[1])
		    c.sendall(eval(sys.argv[3]))
		print("ready", flush=True)
		for c in clients:
		    c.recv(1)
		print("ended", flush=True)
	END
	others+=($!)
	until_true 10 grep -q ready "$1"
}
say "clients that have said nothing give way; half a message has a limit of time"
clients_begin "$dir/silent" 4 'b""'
expect 0 'checks$' "$probe" "$s" requests
expect 0 'another client needs its place' q events
kill "${others[-1]}"
clients_begin "$dir/half" 1 'bytes([1, 0, 0, 0, 1])' # it ends while the test goes on

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

say "quarry-vhost-bench"
bench() { "$BUILD/quarry-vhost-bench" --socket "$s" --rw read --once --size 1M "$@"; }
expect 0 '"ios": 256,' bench
expect 2 '^quarry-vhost-bench: --queues must be 1 to 16$' bench --queues 17
expect 2 '^quarry-vhost-bench: --iodepth must be 1 to 512$' bench --iodepth 513
expect 2 '^quarry-vhost-bench: --bs must be a multiple of 512, at most 16M$' bench --bs 513

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

until_true 20 grep -q ended "$dir/half"
expect 0 'the beginning of a message only' q events

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

say "a snapshot, beside its volume: both ways at once"
q volume detach v1 >/dev/null
q volume attach v1 --vhost-user >/dev/null
q snapshot create v1@s1 >/dev/null
snap=$(vhost_socket v1@s1)
is "its socket" "$(q volume attach v1@s1 --vhost-user --queues 2)" "$snap"
is "its socket again" "$(json .uri volume attach v1@s1 --vhost-user --queues 2)" "$snap"
expect 1 'attached with 2 queues' q volume attach v1@s1 --vhost-user --queues 3
expect 0 '^nbd' q volume attach v1@s1 --nbd
expect 0 'checks$' "$probe" --seed 9 "$s" requests # the volume goes on
id=$(sed -n 's/^id //p' "$dir/said")
snapshot_is_as_it_was() {
	expect 0 'checks$' "$probe" --queues 2 "$snap" same "$dir/image"
	expect 0 'checks$' "$probe" --packed "$snap" read-only
	holds cmp "$dir/image" <(nbdcopy "$(uri v1@s1)" -)
}
snapshot_is_as_it_was
expect 1 'content' "$probe" "$s" same "$dir/image"
expect 0 '^num_queues 2$' "$probe" "$snap" config
cp "$dir/said" "$dir/config"
expect 0 "^id ${id:0:12}[0-9a-f]{8}\$" cat "$dir/config"
expect 1 '' grep "^id $id\$" "$dir/config" # a guest that has both tells them apart
expect 0 "vhost-user: *$snap" q snapshot show v1@s1
expect 0 "nbd: *nbd\+unix:///v1@s1" q snapshot show v1@s1
is "its attachments" "$(json '[.snapshots[0].attachments[] | [.frontend, .read_only, .queues]] | tostring' snapshot list)" \
	'[["nbd",true,null],["vhost-user",true,2]]'
expect 0 'attached' q snapshot list v1
expect 1 'is attached' q snapshot delete v1@s1

say "it comes back after a restart"
for how in stop kill; do
	"daemon_$how"
	daemon_start
	snapshot_is_as_it_was
done

say "its socket has its volume's name, and goes with the attachment"
q volume rename v1 other >/dev/null
expect 0 'checks$' "$probe" "$(vhost_socket other@s1)" same "$dir/image"
holds test ! -e "$snap"
q volume rename other v1 >/dev/null
expect 0 "^detached snapshot 'v1@s1' over NBD; it stays attached over vhost-user$" q volume detach v1@s1 --nbd
expect 0 "^snapshot 'v1@s1' is not attached over NBD; it is over vhost-user$" q volume detach v1@s1 --nbd
expect 1 '' nbdinfo "$(uri v1@s1)"
expect 0 '' q volume export v1@s1 "$dir/export.raw" # attaches it over NBD for its time, and only so
holds cmp "$dir/image" "$dir/export.raw"
expect 0 'checks$' "$probe" "$snap" same "$dir/image"
expect 0 '' q volume detach v1@s1 --vhost-user
expect 0 '' q volume detach v1@s1
holds test ! -e "$snap"
long=$(printf 's%.0s' {1..63})
q volume create "$long" --size 16M >/dev/null
q snapshot create "$long@$long" >/dev/null
expect 1 'too long a path' q volume attach "$long@$long" --vhost-user
expect 0 '' q snapshot delete "$long@$long"
expect 0 '' q snapshot delete v1@s1
q volume create w --size 16M >/dev/null
touch "$(vhost_socket w)"
expect 1 "listen on $(vhost_socket w): a file or another program's socket is there; remove it$" q volume attach w --vhost-user
rm "$(vhost_socket w)"
mv "$dir/vhost" "$dir/away"
expect 1 "listen on $(vhost_socket w): its folder is gone; make it" q volume attach w --vhost-user
mv "$dir/away" "$dir/vhost"
expect 0 "^$(vhost_socket w)$" q volume attach w --vhost-user
expect 0 '' q volume detach w

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

say "rings that are polled for a while"
daemon_stop
VHOST_CONF="poll_us = 50;" daemon_begin
for ring in "" --packed; do
	# shellcheck disable=SC2086
	expect 0 'checks$' "$probe" $ring --queues 4 "$(vhost_socket v2)" requests
done
passed
