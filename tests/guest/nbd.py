#!/usr/bin/python3
"""nbd.py: a Linux guest under QEMU works on volumes over NBD, as a user's virtual machine would.

  nbd.py --initramfs FILE --kernel FILE --virtio URI --tcp HOST:PORT/NAME

  --virtio   the guest's /dev/vda: QEMU is the NBD client
  --tcp      the export that the guest's own kernel attaches with nbd-client (the host's loopback is 10.0.2.2 in there)

Both volumes are overwritten; 128 MiB or more. Exit status 0: all checks passed.
"""
from machine import Guest, arguments, check, compare, main, no_errors, work

o = arguments(__doc__, "--virtio", "--tcp").parse_args()


def attach(host_port, name):
    host, port = host_port.rsplit(":", 1)
    return r"""set -e
/bin/nbd-client -N %s %s %s /dev/nbd0 -b 512 -C 2 -timeout 30 -persist >/tmp/nbd 2>&1 || { cat /tmp/nbd; exit 1; }
cat /sys/block/nbd0/size /sys/block/nbd0/queue/write_cache /sys/block/nbd0/queue/discard_max_bytes""" % (name, host, port)


def run(folder):
    guest = Guest(folder, o, ["-netdev", "user,id=net,restrict=off", "-device", "virtio-net-pci,netdev=net",
                              "-drive", "if=none,id=disk,format=raw,discard=unmap,cache=none,file=" + o.virtio,
                              "-device", "virtio-blk-pci,drive=disk"])
    try:
        guest.wait_up()
        check(True, "the guest is up")
        print("     vda: " + guest.run("cd /sys/block/vda; echo $(cat size) sectors, $(cat queue/write_cache), "
                                       "discards of up to $(cat queue/discard_max_bytes)")[1])
        work(guest, "/dev/vda")
        address, name = o.tcp.split("/", 1)
        out = guest.works("nbd-client attaches over TCP with two connections", attach(address, name))
        print("     nbd0: " + ", ".join(out.split("\n")))
        check("write back" in out and out.split("\n")[-1] != "0", "nbd0 flushes and discards", out)
        work(guest, "/dev/nbd0")
        guest.works("nbd0: detached and attached again",
                    "/bin/nbd-client -d /dev/nbd0 >/dev/null 2>&1; n=0; while [ -s /sys/block/nbd0/pid ] && [ $n -lt 100 ]; do "
                    "n=$((n + 1)); usleep 50000; done\n" + attach(address, name))
        compare(guest, "/dev/nbd0", "after that")
        guest.send("reboot -f")
        guest.wait_up()
        compare(guest, "/dev/vda", "after a reboot")
        no_errors(guest)
        guest.power_off()
    finally:
        guest.end()


main(run)
