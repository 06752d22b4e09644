#!/bin/bash
# limit: 240
# libvirt.sh: libvirt starts a guest from the how-to's XML, over vhost-user; the daemon ends and is killed under it, and its
# disk is resized. Skipped where libvirt is not installed: it is not among the packages of tests.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/../e2e/vhost-lib.sh"
require libvirtd virsh qemu-system-x86_64 cpio depmod setpriv
# A libvirt of its own: that of a user's session, which has no part in the machine's. Root has none, so nobody takes part,
# and reaches the sockets as the how-to says.
user=()
if [ "$(id -u)" = 0 ]; then
	require setfacl
	user=(setpriv --reuid nobody --regid nogroup --clear-groups)
	umask 007 # the unit's: an ACL gives no more than the group has
fi
daemon_begin
if [ ${#user[@]} -gt 0 ]; then
	chmod o+x "$dir"
	setfacl -m u:nobody:x,d:u:nobody:rw "$dir/vhost"
fi
disk_make d1 2G
require_vhost
mkdir -m 777 "$dir/session"
status=0
kernel=$("$top/tests/guest/make-initramfs" "$dir/session/initramfs") || status=$?
[ $status != 77 ] || skip "$kernel"
[ $status = 0 ] || fail "the initramfs was not made: $kernel"
cp "$kernel" "$dir/session/kernel"
cp "$top"/tests/guest/{machine,libvirt}.py "$top/docs/how-to/attach-to-a-vm.md" "$dir/session"
chmod -R o+rX "$dir/session"
vhost_make vm1 512M

session=(env -C "$dir/session" HOME="$dir/session" XDG_RUNTIME_DIR="$dir/session" XDG_CONFIG_HOME= XDG_CACHE_HOME=
	XDG_DATA_HOME= "${user[@]}")
"${session[@]}" "$(command -v libvirtd)" >"$dir/libvirtd" 2>&1 &
others+=($!)
until_true 20 "${session[@]}" virsh -q -c qemu:///session version >/dev/null 2>&1

guest_attend vm1 "${session[@]}" ./libvirt.py --initramfs initramfs --kernel kernel --socket "$(vhost_socket vm1)" \
	--how-to attach-to-a-vm.md --ask "$dir/ask" --answer "$dir/answer"
daemon_stop
expect 0 '' q disk check "$dir/disks/d1.img"
passed
