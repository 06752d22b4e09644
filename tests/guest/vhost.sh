#!/bin/bash
# limit: 600
# vhost.sh [RESTARTS]: a virtual machine whose disk is a volume over vhost-user-blk, with split and packed rings, one queue
# and two; the daemon is killed and started again while the guest runs a verifying load. Two more migrate.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../e2e/vhost-lib.sh"
restarts=${1:-2}
require qemu-system-x86_64 cpio depmod
daemon_begin
disk_make d1 3G
require_vhost
status=0
kernel=$("$top/tests/guest/make-initramfs" "$dir/initramfs") || status=$?
[ $status != 77 ] || skip "$kernel"
[ $status = 0 ] || fail "the initramfs was not made: $kernel"

boot() { # NAME OPTIONS ...
	local name=$1
	shift
	vhost_make "$name" 512M --queues 4
	guest_attend "$name" "$top/tests/guest/vhost.py" --initramfs "$dir/initramfs" --kernel "$kernel" \
		--socket "$(vhost_socket "$name")" "$@" --restart "$(guest_asks kill)" --restarts "$restarts" \
		--resize "$(guest_asks resize)"
}
boot one --queues 1
boot two --queues 2 --packed
boot three --migrate
boot four --packed --migrate
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
