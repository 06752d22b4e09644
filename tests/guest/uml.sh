#!/bin/bash
# limit: 420
# uml.sh: User Mode Linux, whose disk is a volume over vhost-user-blk.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../e2e/vhost-lib.sh"
require cpio depmod
daemon_begin
disk_make d1 2G
require_vhost
status=0
kernel=$("$top/tests/guest/make-initramfs" --uml "$dir/initramfs") || status=$?
[ $status != 77 ] || skip "$kernel"
[ $status = 0 ] || fail "the initramfs was not made: $kernel"
vhost_make uml 512M
holds "$top/tests/guest/uml.py" --initramfs "$dir/initramfs" --kernel "$kernel" --socket "$(vhost_socket uml)" \
	--resize "$BUILD/quarry volume resize uml 576M >/dev/null"
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
