#!/bin/bash
# limit: 240
# nbd-clients.sh: nbdinfo, nbdcopy, qemu-img and qemu-io find in a volume what they would find in a disk.
. "$(dirname "$0")/lib.sh"
require nbdinfo nbdcopy qemu-img qemu-io jq cmp
daemon_begin
disk_make d1 2G
volume_make v1 256M
volume_make v2 256M
u=$(uri v1)

say "nbdinfo"
expect 0 'newstyle-fixed' nbdinfo "$u"
is "size" "$(nbdinfo --size "$u")" $((256 << 20))
for can in flush fua trim zero multi-conn df cache fast-zero write; do
	expect 0 '' nbdinfo --can "$can" "$u"
done
expect 2 '' nbdinfo --is read-only "$u"
expect 0 '"block_size_minimum": 512,' nbdinfo --json "$u"
expect 0 'base:allocation' nbdinfo --json "$u"
is "exports listed" "$(nbdinfo --list --json "nbd+unix://?socket=$dir/nbd.sock" | jq -r '[.exports[]."export-name"] | sort | join(",")')" v1,v2
expect 1 'requested export|export.*not|unknown' nbdinfo "$(uri nothing)"
is "an empty volume is one hole" "$(nbdinfo --map --json "$u" | jq -r 'map("\(.offset) \(.length) \(.type)") | join(";")')" \
	"0 $((256 << 20)) 3"

say "nbdcopy there and back"
# data, a hole in the middle, an odd end: what a disk image looks like
head -c 50M /dev/urandom >"$dir/image"
truncate -s 120M "$dir/image"
head -c 10M /dev/urandom | dd of="$dir/image" bs=1M seek=100 conv=notrunc status=none
truncate -s 256M "$dir/image"
nbdcopy --flush "$dir/image" "$u"
holds cmp "$dir/image" <(nbdcopy "$u" -)
nbdcopy "$u" "$dir/back"
holds cmp "$dir/image" "$dir/back"
nbdcopy --flush "$u" "$(uri v2)"
nbdcopy "$(uri v2)" "$dir/back2"
holds cmp "$dir/image" "$dir/back2"
for requests in 1 64; do
	nbdcopy --requests=$requests --connections=1 --synchronous "$u" "$dir/back3"
	holds cmp "$dir/image" "$dir/back3"
	rm "$dir/back3"
done

say "the map is truthful: data where data is, holes elsewhere"
is "data bytes" "$(nbdinfo --map --json "$u" | jq '[.[] | select(.type == 0) | .length] | add')" $((60 << 20))
is "first hole" "$(nbdinfo --map --json "$u" | jq -r '[.[] | select(.type == 3)][0] | "\(.offset) \(.length)"')" \
	"$((50 << 20)) $((50 << 20))"
is "qemu-img's map" "$(qemu-img map --output=json -f raw "$u" | jq '[.[] | select(.data) | .length] | add')" $((60 << 20))

say "qemu-img"
is "virtual size" "$(qemu-img info --output=json "$u" | jq '."virtual-size"')" $((256 << 20))
expect 0 'identical' qemu-img compare -f raw -F raw "$dir/image" "$u"
expect 0 'identical' qemu-img compare -s -f raw -F raw "$u" "$(uri v2)"
qemu-img convert -f raw -O qcow2 "$u" "$dir/image.qcow2"
expect 0 'identical' qemu-img compare -f raw -F qcow2 "$u" "$dir/image.qcow2"
volume_make v3 256M
qemu-img convert -n --target-is-zero -f qcow2 -O raw "$dir/image.qcow2" "$(uri v3)"
expect 0 'identical' qemu-img compare -f raw -F raw "$u" "$(uri v3)"
qemu-img convert -n -W -m 16 -f raw -O raw "$u" "$(uri v3)"
expect 0 'identical' qemu-img compare -f raw -F raw "$u" "$(uri v3)"
# small and short: that it works, not how quick it is
expect 0 'Run completed' qemu-img bench -f raw -c 2000 -d 32 -s 4096 "$u"
expect 0 'Run completed' qemu-img bench -f raw -w -c 2000 -d 32 -s 4096 --flush-interval=100 "$(uri v2)"

say "qemu-io"
qio() { # URI COMMAND ...
	local u=$1 c args=()
	shift
	for c in "$@"; do args+=(-c "$c"); done
	qemu-io -f raw -t none "${args[@]}" "$u"
}
u3=$(uri v3)
expect 0 'wrote 65536/65536' qio "$u3" 'write -P 0xab 1M 64k' 'flush'
expect 0 'read 65536/65536' qio "$u3" 'read -P 0xab 1M 64k'
expect 0 'read 512/512' qio "$u3" 'write -P 0xcd 1049088 512' 'read -P 0xcd 1049088 512' 'read -P 0xab 1M 512'
expect 0 'wrote 4096/4096' qio "$u3" 'write -z -u 1M 4k' 'read -P 0 1M 4k' 'read -P 0xab 1052672 4k'
expect 0 'discard 65536/65536' qio "$u3" 'discard 1M 64k' 'read -P 0 1M 64k'
expect 0 'wrote 1048576/1048576' qio "$u3" 'write -f -P 0x11 2M 1M' 'read -P 0x11 2M 1M'
expect 0 'wrote 16777216/16777216' qio "$u3" 'write -P 0x22 16M 16M' 'read -P 0x22 16M 16M'
expect 1 'Pattern verification failed' qio "$u3" 'read -P 0x23 16M 4k'
expect 0 '' qio "$u3" 'aio_write -P 1 0 64k' 'aio_write -P 2 64k 64k' 'aio_write -P 3 32k 64k' 'aio_flush' 'read -P 3 32k 64k'
is "zeroes keep their space when asked" "$(qio "$u3" 'write -z 32M 1M' >/dev/null && qemu-img map --output=json -f raw "$u3" |
	jq '[.[] | select(.start <= 33554432 and .start + .length >= 34603008)][0].data')" true

say "a client that leaves in the middle hurts nobody"
for _ in 1 2 3 4 5; do
	nbdcopy "$u" null: &
	client=$!
	until_true 5 grep -q nbdcopy /proc/$client/comm
	kill -KILL $client 2>/dev/null || true
	wait $client 2>/dev/null || true
done
expect 0 'identical' qemu-img compare -f raw -F raw "$dir/image" "$u"
passed
