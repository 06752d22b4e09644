#!/bin/bash
# limit: 420
# nbd.sh: a virtual machine whose disk is a volume, by QEMU's NBD client and by the kernel's own inside the guest.
. "$(dirname "$0")/../e2e/lib.sh"
require qemu-system-x86_64 cpio depmod
status=0
kernel=$("$top/tests/guest/make-initramfs" "$dir/initramfs") || status=$?
[ $status != 77 ] || skip "$kernel"
[ $status = 0 ] || fail "the initramfs was not made: $kernel"
port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
NBD_CONF="listen = \"127.0.0.1:$port\";" daemon_begin
disk_make d1 2G
volume_make vm1 1G
volume_make vm2 6G
holds "$top/tests/guest/nbd.py" --initramfs "$dir/initramfs" --kernel "$kernel" --virtio "$(uri vm1)" \
	--tcp "10.0.2.2:$port/vm2"
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
