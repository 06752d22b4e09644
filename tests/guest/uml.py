#!/usr/bin/python3
"""uml.py: User Mode Linux works on a volume over vhost-user-blk; its virtio_uml is the VMM, and the guest's kernel in one.

  uml.py --initramfs FILE --kernel FILE --socket PATH [--resize COMMAND]

  --resize   grows the volume by 64 MiB; the guest must see it

The volume is overwritten; 128 MiB or more. Exit status 0: all checks passed.
"""
import subprocess

from machine import SEEN, Uml, arguments, check, compare, main, no_errors, work

p = arguments(__doc__, "--socket")
p.add_argument("--resize")
o = p.parse_args()

RING_PACKED = 34  # the number of the feature


def run(folder):
    guest = Uml(folder, o, ["virtio_uml.device=%s:2" % o.socket])
    try:
        guest.wait_up()
        out = guest.run("cd /sys/block/vda; echo $(cat size) $(cat queue/write_cache | tr ' ' -) $(cat device/features)")[1]
        print("     vda: sectors, cache, features: " + out)
        size, cache, features = out.split()
        check(cache == "write-back", "the write cache is known, so the guest flushes", out)
        check(features[RING_PACKED] == "1", "its ring is packed, and begins where virtio_uml says", out)
        work(guest, "/dev/vda")
        guest.works("its driver goes and comes again, with a new ring", "rmmod virtio_blk && [ ! -e /dev/vda ] && modprobe virtio_blk")
        compare(guest, "/dev/vda", "after that")
        if o.resize:
            subprocess.run(o.resize, shell=True, timeout=60, check=True)
            new = int(size) + (64 << 20) // 512
            guest.works("64 MiB more are seen, and ext4 grows", SEEN % (new, new))
        compare(guest, "/dev/vda", "at the end")
        no_errors(guest)
        guest.power_off()
    finally:
        guest.end()


main(run)
