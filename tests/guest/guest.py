#!/usr/bin/python3
"""guest.py: a Linux guest under QEMU works on volumes, as a user's virtual machine would.

  guest.py --initramfs FILE --kernel FILE --virtio URI --tcp HOST:PORT/NAME

  --virtio   the guest's /dev/vda: QEMU is the NBD client
  --tcp      the export that the guest's own kernel attaches with nbd-client (the host's loopback is 10.0.2.2 in there)

Emulation (TCG) is enough: a guest is up in a few seconds; QUARRY_GUEST_ACCEL=kvm where the machine has it. Both volumes are
overwritten; 128 MiB or more. Exit status 0: all checks passed.
"""
import argparse
import base64
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--initramfs", required=True)
p.add_argument("--kernel", required=True)
p.add_argument("--virtio", required=True)
p.add_argument("--tcp", required=True)
p.add_argument("--limit", type=float, default=180, help="seconds for each step in the guest")
o = p.parse_args()
started, checks = time.monotonic(), 0


class Failed(Exception):
    pass


def check(claim, what, detail=""):
    global checks
    print("%s %6.1f s  %s" % ("ok  " if claim else "FAIL", time.monotonic() - started, what), flush=True)
    if not claim:
        raise Failed(detail)
    checks += 1


class Guest:
    """QEMU, and the serial line to init in the guest."""

    def __init__(self, folder):
        self.folder, self.buffer, self.n_sent = folder, b"", 0
        self.console = folder + "/console"
        self.line = socket.socket(socket.AF_UNIX)
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL)
        self.connect(folder + "/serial")

    def command(self):
        return ["qemu-system-x86_64", "-machine", "q35", "-accel", os.environ.get("QUARRY_GUEST_ACCEL", "tcg"), "-cpu", "max",
                "-smp", "2", "-m", "512", "-nodefaults", "-display", "none", "-serial", "file:" + self.console,
                "-chardev", "socket,id=line,path=%s/serial,server=on,wait=off" % self.folder, "-serial", "chardev:line",
                "-netdev", "user,id=net,restrict=off", "-device", "virtio-net-pci,netdev=net",
                "-drive", "if=none,id=disk,format=raw,discard=unmap,cache=none,file=" + o.virtio,
                "-device", "virtio-blk-pci,drive=disk", "-kernel", o.kernel, "-initrd", o.initramfs,
                "-append", "console=ttyS0 panic=-1 tsc=unstable mitigations=off"]

    def connect(self, path):
        end = time.monotonic() + 20
        while True:
            try:
                return self.line.connect(path)
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise Failed("QEMU did not start") from None
                time.sleep(0.05)  # poll: until QEMU listens

    def read_line(self, end):
        while b"\n" not in self.buffer:
            self.line.settimeout(max(0.01, end - time.monotonic()))
            try:
                got = self.line.recv(65536)
            except socket.timeout:
                raise Failed("the guest did not answer in time; its console ends:\n" + self.console_tail()) from None
            if not got:
                raise Failed("QEMU has ended; the console's end:\n" + self.console_tail())
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode("utf-8", "replace").rstrip("\r")

    def console_tail(self):
        with open(self.console, errors="replace") as f:
            return f.read()[-2000:]

    def wait_up(self):
        end = time.monotonic() + o.limit
        while self.read_line(end) != "UP":
            pass

    def send(self, script):
        self.n_sent += 1
        self.line.sendall(b"RUN %d %s\n" % (self.n_sent, base64.b64encode(script.encode())))

    def result(self):
        end, out, is_on = time.monotonic() + o.limit, [], False
        while True:
            line = self.read_line(end)
            if line == "BEGIN %d" % self.n_sent:
                is_on = True
            elif line.startswith("END %d " % self.n_sent):
                return int(line.split()[2]), "\n".join(out).strip()
            elif is_on:
                out.append(line)

    def run(self, script):
        self.send(script)
        return self.result()

    def works(self, what, script):
        status, out = self.run(script)
        check(status == 0, what, out)
        return out

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


RAW = r"""set -e
dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null
dd if=/tmp/r of=DEV bs=64k oflag=direct 2>/dev/null
dd if=/tmp/r of=DEV bs=4k seek=8192 count=512 oflag=direct conv=fsync 2>/dev/null
dd if=/tmp/r of=DEV bs=512 seek=100001 count=777 oflag=direct 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
dd if=DEV bs=64k count=128 iflag=direct 2>/dev/null | cmp - /tmp/r
dd if=DEV bs=4k skip=8192 count=512 iflag=direct 2>/dev/null | cmp -n 2097152 - /tmp/r
dd if=DEV bs=512 skip=100001 count=777 iflag=direct 2>/dev/null | cmp -n 397824 - /tmp/r
rm /tmp/r"""
DISCARD = r"""set -e
/bin/blkdiscard DEV
echo 3 > /proc/sys/vm/drop_caches
dd if=DEV bs=1M count=32 2>/dev/null | cmp -n 33554432 - /dev/zero"""
FILES = r"""set -e
/bin/mkfs.ext4 -q -F DEV
mount -t ext4 DEV /mnt
i=0; while [ $i -lt 50 ]; do dd if=/dev/urandom of=/mnt/f$i bs=3k count=$((i * 3 + 1)) 2>/dev/null; i=$((i + 1)); done
dd if=/dev/urandom of=/mnt/big bs=1M count=12 conv=fsync 2>/dev/null
cd /mnt; sha256sum f* big > SUMS
dd if=/dev/zero of=junk bs=1M count=8 conv=fsync 2>/dev/null; rm junk; sync; cd /
/bin/fstrim -v /mnt
umount /mnt"""
COMPARE = r"""mount -t ext4 DEV /mnt && cd /mnt && sha256sum -c SUMS | grep -c OK; cd /; umount /mnt
/bin/e2fsck -fn DEV > /tmp/fsck 2>&1 && echo clean || cat /tmp/fsck"""


def on(device, script):
    return script.replace("DEV", device)


def work(guest, device):
    """What a disk is good for."""
    guest.works(device + ": raw reads and writes, down to sectors", on(device, RAW))
    guest.works(device + ": discarded, reads as zeros", on(device, DISCARD))
    guest.works(device + ": mkfs.ext4, files, fsync, fstrim, umount", on(device, FILES))
    out = guest.run(on(device, COMPARE))[1]
    check(out.split() == ["51", "clean"], device + ": 51 checksums and fsck", out)


def attach(host_port, name):
    host, port = host_port.rsplit(":", 1)
    return r"""set -e
/bin/nbd-client -N %s %s %s /dev/nbd0 -b 512 -C 2 -timeout 30 -persist >/tmp/nbd 2>&1 || { cat /tmp/nbd; exit 1; }
cat /sys/block/nbd0/size /sys/block/nbd0/queue/write_cache /sys/block/nbd0/queue/discard_max_bytes""" % (name, host, port)


def run(folder):
    guest = Guest(folder)
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
        out = guest.run(on("/dev/nbd0", COMPARE))[1]
        check(out.split() == ["51", "clean"], "nbd0: 51 checksums after that", out)
        guest.send("reboot -f")
        guest.wait_up()
        out = guest.run(on("/dev/vda", COMPARE))[1]
        check(out.split() == ["51", "clean"], "vda: 51 checksums after a reboot", out)
        out = guest.run("dmesg | grep -E 'I/O error|EXT4-fs error|BUG:|hung task' | head -3")[1]
        check(out == "", "no error in the guest's log", out)
        guest.send("poweroff -f")
        guest.process.wait(20)
    finally:
        guest.end()


folder = tempfile.mkdtemp(prefix="guest.")
try:
    run(folder)
    print("%d checks" % checks)
except (Failed, subprocess.TimeoutExpired) as e:
    print(str(e))
    sys.exit(1)
finally:
    shutil.rmtree(folder, ignore_errors=True)
