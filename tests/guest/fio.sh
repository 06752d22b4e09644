#!/bin/bash
# limit: 420
# fio.sh: the job files that users are given, inside a virtual machine whose disk is a volume over vhost-user-blk, by the
# command in the head of each; what was written is verified once more after the daemon was killed.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../e2e/vhost-lib.sh"
require qemu-system-x86_64 cpio depmod fio
daemon_begin
disk_make d1 2G
require_vhost
status=0
kernel=$("$top/tests/guest/make-initramfs" --fio "$dir/initramfs") || status=$?
[ $status != 77 ] || skip "$kernel"
[ $status = 0 ] || fail "the initramfs was not made: $kernel"
vhost_make vm1 512M --queues 2
guest_attend vm1 "$top/tests/guest/fio.py" --initramfs "$dir/initramfs" --kernel "$kernel" --socket "$(vhost_socket vm1)" \
	--jobs "$top/fio-jobs" --restart "$(guest_asks kill)"
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
