#!/bin/bash
# limit: 180
# filesystem.sh: ext4 inside a volume, through nbdfuse and the kernel's loop device or debugfs alone: files come back, before
# and after a kill, and fsck finds nothing.
. "$(dirname "$0")/lib.sh"
require nbdfuse mkfs.ext4 e2fsck debugfs sha256sum
[ -e /dev/fuse ] || skip "there is no /dev/fuse"
daemon_begin
disk_make d1 1G
volume_make v1 256M
mkdir "$dir/m"

fuse_up() {
	nbdfuse "$dir/m/nbd" "$(uri v1)" &
	fuse_pid=$!
	others+=("$fuse_pid")
	mounts+=("$dir/m")
	until_true 10 test -e "$dir/m/nbd"
}
fuse_down() {
	umount "$dir/m"
	wait "$fuse_pid" || true
}
mkdir -p "$dir/m"
nbdfuse "$dir/m/" "$(uri v1)" 2>/dev/null &
probe=$!
others+=("$probe")
usable() { mountpoint -q "$dir/m" || ! kill -0 $probe 2>/dev/null; }
until_true 10 usable
mountpoint -q "$dir/m" || skip "this machine does not allow FUSE mounts"
umount "$dir/m"
wait $probe || true

say "mkfs and files, written with debugfs: no kernel between us and the volume"
fuse_up
expect 0 '' mkfs.ext4 -q -F "$dir/m/nbd"
mkdir "$dir/files"
for i in $(seq 40); do
	head -c $((i * i * 511)) /dev/urandom >"$dir/files/f$i"
done
(cd "$dir/files" && for f in *; do echo "write $f $f"; done) >"$dir/script"
(cd "$dir/files" && debugfs -w -f "$dir/script" "$dir/m/nbd" >/dev/null 2>&1)
sync -f "$dir/m/nbd"
fuse_down

compare() {
	local f
	fuse_up
	expect 0 '' e2fsck -fn "$dir/m/nbd"
	rm -rf "$dir/back"
	mkdir "$dir/back"
	expect 0 '' debugfs -R "rdump / $dir/back" "$dir/m/nbd"
	for f in "$dir"/files/*; do
		holds cmp "$f" "$dir/back/${f##*/}"
	done
	fuse_down
}
compare
say "after a kill"
daemon_kill
daemon_start
compare

say "mounted by the kernel"
fuse_up
mkdir "$dir/fs"
if mount -o loop "$dir/m/nbd" "$dir/fs" 2>"$dir/said"; then
	mounts=("$dir/fs" "${mounts[@]}")
	(cd "$dir/files" && sha256sum ./*) >"$dir/sums"
	(cd "$dir/fs" && sha256sum --quiet -c "$dir/sums")
	cp -r "$dir/files" "$dir/fs/more"
	rm "$dir"/fs/f1*
	fstrim "$dir/fs" || true
	umount "$dir/fs"
	mount -o loop "$dir/m/nbd" "$dir/fs"
	(cd "$dir/fs/more" && sha256sum --quiet -c "$dir/sums")
	umount "$dir/fs"
	expect 0 '' e2fsck -fn "$dir/m/nbd"
else
	echo "the kernel has no loop device or no ext4 here: $(head -n 1 "$dir/said")"
fi
fuse_down
passed
