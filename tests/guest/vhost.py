#!/usr/bin/python3
"""vhost.py: a Linux guest under QEMU works on a volume over vhost-user-blk, and must not notice what happens to the server.

  vhost.py --initramfs FILE --kernel FILE --socket PATH [--queues N] [--packed]
           [--restart COMMAND --restarts N] [--resize COMMAND]
  vhost.py ... --migrate

  --restart  ends the server and starts it again; run N times under a verifying load
  --resize   grows the volume by 64 MiB; the guest must see it without a reboot
  --migrate  a machine that goes on in another QEMU under the load, and no more

The volume is overwritten; 128 MiB or more. Exit status 0: all checks passed.
"""
import os
import subprocess

from machine import SEEN, VHOST_MACHINE, Guest, arguments, check, compare, main, no_errors, vhost_disk, wait_for, work

p = arguments(__doc__, "--socket")
p.add_argument("--queues", type=int, default=1)
p.add_argument("--packed", action="store_true")
p.add_argument("--restart")
p.add_argument("--restarts", type=int, default=2)
p.add_argument("--resize")
p.add_argument("--migrate", action="store_true")
o = p.parse_args()

# Writes new content over and over, reads it back past the page cache, until /tmp/stop is there; each turn is counted.
LOAD = r"""rm -f /tmp/stop /tmp/turns; echo 0 > /tmp/turns
( n=0
while [ ! -e /tmp/stop ]; do
	n=$((n + 1))
	dd if=/dev/urandom of=/tmp/r bs=64k count=24 2>/dev/null
	dd if=/tmp/r of=/dev/vda bs=64k seek=$((n % 20 * 24)) oflag=direct conv=fsync 2>/tmp/said || break
	dd if=/dev/vda bs=64k skip=$((n % 20 * 24)) count=24 iflag=direct 2>>/tmp/said | cmp - /tmp/r >>/tmp/said 2>&1 || break
	echo $n > /tmp/turns
done
[ -e /tmp/stop ] && echo well > /tmp/end || echo broken > /tmp/end ) >/dev/null 2>&1 </dev/null &"""
# The load must make a turn, or end.
TURN = r"""before=$(cat /tmp/turns); i=0
while [ "$(cat /tmp/turns)" -le "$((before + 1))" ] && [ ! -e /tmp/end ] && [ $i -lt 600 ]; do usleep 100000; i=$((i + 1)); done
[ ! -e /tmp/end ] && [ $i -lt 600 ] || { cat /tmp/said; exit 1; }"""
STOP = r"""touch /tmp/stop; i=0
while [ ! -e /tmp/end ] && [ $i -lt 600 ]; do usleep 100000; i=$((i + 1)); done
cat /tmp/turns; grep -q well /tmp/end || { cat /tmp/said; exit 1; }; rm /tmp/end"""
# A guest may give up its cache, and take it back; the device then tells the next one who asks.
CACHE = r"""set -e
for mode in "write through" "write back"; do
	echo "$mode" > /sys/block/vda/cache_type
	[ "$(cat /sys/block/vda/cache_type)" = "$mode" ] && [ "$(cat /sys/block/vda/queue/write_cache)" = "$mode" ]
	dd if=/dev/urandom of=/tmp/r bs=64k count=4 2>/dev/null
	dd if=/tmp/r of=/dev/vda bs=64k oflag=direct 2>/dev/null
	dd if=/dev/vda bs=64k count=4 iflag=direct 2>/dev/null | cmp - /tmp/r
done"""
GONE = "i=0; while [ -e /dev/vda ] && [ $i -lt 300 ]; do usleep 100000; i=$((i + 1)); done; [ ! -e /dev/vda ]"
THERE = "i=0; while [ ! -e /dev/vda ] && [ $i -lt 300 ]; do usleep 100000; i=$((i + 1)); done; [ -e /dev/vda ]"
KIND = "packed" if o.packed else "split"


def devices():
    return vhost_disk(o.socket, o.queues, o.packed)


def restarts(guest):
    guest.works("the load begins", LOAD)
    for i in range(o.restarts):
        guest.works("the load goes on (%d restarts so far)" % i, TURN)
        subprocess.run(o.restart, shell=True, timeout=120, check=True)
    guest.works("and goes on after the last one", TURN)
    turns = guest.works("the load has read what it wrote", STOP)
    print("     %s turns over %d restarts" % (turns.split("\n")[0], o.restarts))


def migrate(folder):
    """To another QEMU on the same volume, which connects while the first still runs, under the load; it goes on there.
    With one processor: QEMU 7.2 loses memory of an emulated machine with two, whatever its devices are."""
    os.mkdir(folder + "/there")
    guests, uri = [Guest(folder, o, devices(), VHOST_MACHINE, 1)], "unix:%s/incoming" % folder
    try:
        guests.append(Guest(folder + "/there", o, devices() + ["-incoming", "defer"], VHOST_MACHINE, 1))
        here, there = guests
        for guest in guests:
            guest.qmp_begin()
        there.tell("migrate-incoming", uri=uri)
        here.wait_up()
        here.works("the load begins in a machine with a %s ring" % KIND, LOAD + "\n" + TURN)
        there.n_sent = here.n_sent
        here.tell("migrate", uri=uri)
        wait_for(lambda: here.tell("query-migrate").get("status") in ("completed", "failed"), 120)
        check(here.tell("query-migrate")["status"] == "completed", "migrated to another QEMU", here.tell("query-migrate"))
        there.works("the load goes on there, beside the first QEMU", TURN)
        here.end()
        there.works("and has read what it wrote", STOP)
        no_errors(there)
    finally:
        for guest in guests:
            guest.end()


def replug(guest):
    guest.qmp_begin()
    guest.tell("device_del", id="blk")
    guest.wait_event("DEVICE_DELETED")
    guest.works("unplugged: the disk is gone", GONE)
    guest.tell("chardev-remove", id="disk")
    guest.tell("chardev-add", id="disk2", backend={"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": o.socket}}, "server": False, "reconnect": 1}})
    guest.tell("device_add", driver="vhost-user-blk-pci", id="blk2", chardev="disk2", bus="slot1",
               **{"num-queues": o.queues, "packed": o.packed})
    guest.works("plugged in again: the disk is there", THERE)
    compare(guest, "/dev/vda", "after unplugging")


def run(folder):
    guest = Guest(folder, o, devices(), VHOST_MACHINE)
    try:
        guest.wait_up()
        check(True, "the guest is up: %s ring, %d queues" % (KIND, o.queues))
        out = guest.run("cd /sys/block/vda; echo $(cat size) $(ls mq | wc -l) $(cat queue/write_cache | tr ' ' -) "
                        "$(cat queue/discard_max_bytes) $(cat queue/write_zeroes_max_bytes) $(cat queue/physical_block_size)")[1]
        print("     vda: sectors, queues, cache, discard, zeroes, physical block: " + out)
        size, n_queues, cache = out.split()[:3]
        check(int(n_queues) == o.queues, "%d queues" % o.queues, out)
        check(cache == "write-back", "the write cache is known, so the guest flushes", out)
        if o.restart:
            restarts(guest)
        guest.works("the write cache goes off and on", CACHE)
        work(guest, "/dev/vda")
        guest.send("reboot -f")
        guest.wait_up()
        compare(guest, "/dev/vda", "after a reboot")
        replug(guest)
        if o.resize:
            subprocess.run(o.resize, shell=True, timeout=60, check=True)
            new = int(size) + (64 << 20) // 512
            guest.works("64 MiB more are seen, and ext4 grows", SEEN % (new, new))
        no_errors(guest)
        guest.power_off()
    finally:
        guest.end()


main(migrate if o.migrate else run)
