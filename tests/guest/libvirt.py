#!/usr/bin/python3
"""libvirt.py: libvirt starts a guest whose disk is a volume over vhost-user-blk, from the XML that the how-to gives.

  libvirt.py --initramfs FILE --kernel FILE --socket PATH --how-to FILE --ask FIFO --answer FIFO

What the test has to do to the daemon is written to --ask (stop, kill, resize); a line from --answer says that it is done.
"""
import os
import re
import subprocess

from machine import FILES, SEEN, Failed, Guest, arguments, check, compare, main, no_errors, on

p = arguments(__doc__, "--socket", "--how-to", "--ask", "--answer")
o = p.parse_args()

DOMAIN = """<domain type='qemu'><name>vm1</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>%(backing)s
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>%(kernel)s</kernel><initrd>%(initramfs)s</initrd>
<cmdline>console=ttyS0 panic=-1 tsc=unstable mitigations=off</cmdline></os><cpu mode='maximum'/>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>%(disk)s
<controller type='usb' model='none'/><memballoon model='none'/>
<serial type='file'><source path='%(folder)s/console'/><target port='0'/></serial>
<serial type='unix'><source mode='bind' path='%(folder)s/serial'/><target port='1'/></serial></devices></domain>"""


def how_to():
    """The two parts of its XML: memory, disk."""
    with open(o.how_to) as f:
        xml = re.search(r"```xml\n(<memoryBacking>.*?)```", f.read(), re.S).group(1)
    backing, disk = xml.split("...\n")
    return backing, re.sub(r"path='[^']*'", "path='%s'" % o.socket, disk)


def virsh(*words):
    done = subprocess.run(["virsh", "-q", "-c", "qemu:///session"] + list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Failed("virsh %s: %s" % (words[0], done.stdout))
    return done.stdout


def destroy():
    """Whatever libvirt has of it."""
    subprocess.run(["virsh", "-q", "-c", "qemu:///session", "destroy", "vm1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   timeout=60, check=False)


class Domain(Guest):
    def command(self):
        return ["sleep", "600"]  # in QEMU's place: libvirt has that

    def start(self):
        backing, disk = how_to()
        with open(self.folder + "/domain.xml", "w") as f:
            f.write(DOMAIN % {"backing": backing, "disk": disk, "folder": self.folder, "kernel": os.path.abspath(o.kernel),
                              "initramfs": os.path.abspath(o.initramfs)})
        try:
            virsh("create", self.folder + "/domain.xml")
        except (Failed, subprocess.SubprocessError):
            destroy()
            raise
        super().start()

    def end(self):
        super().end()
        destroy()


def ask(what):
    with open(o.ask, "w") as f:
        f.write(what + "\n")
    with open(o.answer) as f:
        f.readline()


WRITES = r"""dd if=/dev/urandom of=/tmp/r bs=64k count=64 2>/dev/null
dd if=/tmp/r of=/dev/vda bs=64k seek=%d oflag=direct conv=fsync 2>/dev/null
dd if=/dev/vda bs=64k skip=%d count=64 iflag=direct 2>/dev/null | cmp - /tmp/r"""


def run(folder):
    guest = Domain(folder, o, [])
    try:
        guest.wait_up()
        size, n_queues = guest.run("echo $(cat /sys/block/vda/size) $(ls /sys/block/vda/mq | wc -l)")[1].split()
        check(n_queues == "2", "libvirt has started the how-to's guest: two queues", n_queues)
        for i, how in enumerate(("stop", "kill")):
            guest.send(WRITES % (i * 64, i * 64))
            ask(how)
            status, out = guest.result()
            check(status == 0, "the daemon began anew under it (%s): the guest reads what it wrote" % how, out)
        guest.works("mkfs.ext4, files, fsync, fstrim, umount", on("/dev/vda", FILES))
        ask("resize")
        new = int(size) + (64 << 20) // 512
        guest.works("64 MiB more are seen, and ext4 grows", SEEN % (new, new))
        compare(guest, "/dev/vda", "at the end")
        no_errors(guest)
    finally:
        guest.end()


main(run)
