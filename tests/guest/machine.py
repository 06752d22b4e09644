"""machine.py: a Linux guest under QEMU or in user mode, what it does with a disk, and how a test talks to it.

Emulation (TCG) is enough: a guest is up in a few seconds; QUARRY_GUEST_ACCEL=kvm where the machine has it.
"""
import argparse
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

started = time.monotonic()
counted = [0]


class Failed(Exception):
    pass


def check(claim, what, detail=""):
    print("%s %6.1f s  %s" % ("ok  " if claim else "FAIL", time.monotonic() - started, what), flush=True)
    if not claim:
        raise Failed(detail)
    counted[0] += 1


def arguments(doc, *required):
    """A parser of what every test of a guest is told, and of these words."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for word in ("--initramfs", "--kernel") + required:
        p.add_argument(word, required=True)
    p.add_argument("--limit", type=float, default=180, help="seconds for each step in the guest")
    return p


def main(run):
    """Runs a test in a folder of its own, and ends with what came of it."""
    folder = tempfile.mkdtemp(prefix="guest.")
    try:
        run(folder)
        print("%d checks" % counted[0])
    except (Failed, subprocess.SubprocessError) as e:
        print(str(e))
        sys.exit(1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(is_so, limit):
    end = time.monotonic() + limit
    while not is_so():
        if time.monotonic() > end:
            raise Failed("not within %d s" % limit)
        time.sleep(0.05)  # poll: with a limit


class Guest:
    """QEMU, and the serial line to init in the guest."""

    def __init__(self, folder, options, devices, machine="q35", n_cpus=2):
        """options: kernel, initramfs, limit; devices: QEMU's arguments for disks and network."""
        self.folder, self.buffer, self.n_sent, self.qmp_buffer = folder, b"", 0, b""
        self.options, self.devices, self.machine, self.n_cpus = options, devices, machine, n_cpus
        self.console = folder + "/console"
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL)
        self.line = self.dial(self.folder + "/serial")

    def command(self):
        return ["qemu-system-x86_64", "-machine", self.machine, "-accel", os.environ.get("QUARRY_GUEST_ACCEL", "tcg"), "-cpu", "max",
                "-smp", str(self.n_cpus), "-m", "512", "-nodefaults", "-display", "none", "-serial", "file:" + self.console,
                "-chardev", "socket,id=line,path=%s/serial,server=on,wait=off" % self.folder, "-serial", "chardev:line",
                "-qmp", "unix:%s/qmp,server=on,wait=off" % self.folder,
                "-kernel", self.options.kernel, "-initrd", self.options.initramfs,
                "-append", "console=ttyS0 panic=-1 tsc=unstable mitigations=off"] + self.devices

    def dial(self, path):
        end, s = time.monotonic() + 20, socket.socket(socket.AF_UNIX)
        while True:
            try:
                s.connect(path)
                return s
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
                raise Failed("the machine has ended; the console's end:\n" + self.console_tail())
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode("utf-8", "replace").rstrip("\r")

    def console_tail(self):
        with open(self.console, errors="replace") as f:
            return f.read()[-2000:]

    def wait_up(self):
        end = time.monotonic() + self.options.limit
        while self.read_line(end) != "UP":
            pass

    def send(self, script):
        self.n_sent += 1
        self.line.sendall(b"RUN %d %s\n" % (self.n_sent, base64.b64encode(script.encode())))

    def power_off(self):
        self.send("poweroff -f")
        self.process.wait(self.options.limit)

    def result(self):
        end, out, is_on = time.monotonic() + self.options.limit, [], False
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

    # ---- QEMU's own control ----

    def qmp_line(self, limit):
        while b"\n" not in self.qmp_buffer:
            self.qmp.settimeout(limit)
            got = self.qmp.recv(65536)
            if not got:
                raise Failed("QEMU has closed its control socket")
            self.qmp_buffer += got
        line, self.qmp_buffer = self.qmp_buffer.split(b"\n", 1)
        return json.loads(line)

    def qmp_begin(self):
        self.qmp = self.dial(self.folder + "/qmp")
        self.qmp_line(20)
        self.tell("qmp_capabilities")

    def tell(self, command, **arguments):
        """One command; its answer. Events that come meanwhile are let go."""
        self.qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self.qmp_line(30)
            if "error" in answer:
                raise Failed("QEMU refuses %s: %s" % (command, answer["error"]["desc"]))
            if "return" in answer:
                return answer["return"]

    def wait_event(self, name, limit=60):
        end = time.monotonic() + limit
        while self.qmp_line(max(0.1, end - time.monotonic())).get("event") != name:
            pass


VHOST_MACHINE = "q35,memory-backend=mem"


def vhost_disk(path, n_queues, is_packed=False):
    """What VHOST_MACHINE needs for a disk over vhost-user: what the device shares with us is the guest's memory itself; a port
    of its own lets the disk come and go."""
    return ["-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-device", "pcie-root-port,id=slot1,chassis=1,slot=1",
            "-chardev", "socket,id=disk,path=%s,reconnect=1" % path,
            "-device", "vhost-user-blk-pci,id=blk,chardev=disk,bus=slot1,num-queues=%d,packed=%s" %
            (n_queues, "on" if is_packed else "off")]


class Uml(Guest):
    """User Mode Linux: the kernel is a process of its own, and its second serial line one end of a pair of sockets."""

    def command(self):
        return [self.options.kernel, "mem=256M", "initrd=" + self.options.initramfs, "uml_dir=" + self.folder,
                "con=null", "con0=null,fd:1", "ssl=null", "ssl1=fd:%d" % self.far.fileno(), "panic=-1", "noreboot"] + self.devices

    def start(self):
        self.line, self.far = socket.socketpair()
        with open(self.console, "wb") as console:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                                            pass_fds=[self.far.fileno()], start_new_session=True)
        self.far.close()

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # the guest's processes are the host's as well
        except ProcessLookupError:
            pass
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

# /dev/vda has become so many sectors, and its file system grows with it.
SEEN = r"""i=0; while [ "$(cat /sys/block/vda/size)" != %d ] && [ $i -lt 300 ]; do usleep 100000; i=$((i + 1)); done
[ "$(cat /sys/block/vda/size)" = %d ] || { cat /sys/block/vda/size; exit 1; }
mount -t ext4 /dev/vda /mnt && /bin/resize2fs /dev/vda 2>/dev/null && umount /mnt && /bin/e2fsck -fn /dev/vda >/dev/null 2>&1"""


def on(device, script):
    return script.replace("DEV", device)


def compare(guest, device, what):
    out = guest.run(on(device, COMPARE))[1]
    check(out.split() == ["51", "clean"], "%s: 51 checksums and fsck %s" % (device, what), out)


def no_errors(guest):
    out = guest.run("dmesg | grep -E 'I/O error|EXT4-fs error|BUG:|hung task|blk_update_request' | head -3")[1]
    check(out == "", "no error in the guest's log", out)


def work(guest, device):
    """What a disk is good for."""
    guest.works(device + ": raw reads and writes, down to sectors", on(device, RAW))
    guest.works(device + ": discarded, reads as zeros", on(device, DISCARD))
    guest.works(device + ": mkfs.ext4, files, fsync, fstrim, umount", on(device, FILES))
    compare(guest, device, "after that")
