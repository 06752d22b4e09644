"""bench_ceph: Ceph beside quarry's copies: one monitor and three OSDs on loopback, a pool of size 3, an image that fio's rbd
engine reads and writes. Nothing of it is needed, nor installed by `make deps`.
"""
import os
import re
import shutil
import signal
import subprocess
import uuid

from bench_lib import Target, cpu_seconds, measure_beside, port_free, run, wait_for, written_bytes

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "rbd")
OSDS = 3

CONF = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}/0]
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
crash dir = {folder}
mon data = {folder}/$name
mon max pg per osd = 1000
osd data = {folder}/$name
osd pool default size = {osds}
osd crush chooseleaf type = 0
bluestore block size = {disk_bytes}
"""


def missing():
    """The first program of Ceph's that is not here, or None."""
    return next((p for p in PROGRAMS if not shutil.which(p)), None)


class Ceph(Target):
    """All of its daemons."""

    def __init__(self, name, o, folder):
        super().__init__(name, o, folder)
        self.daemons = []

    def start(self):
        fsid, port = str(uuid.uuid4()), port_free()
        self.conf, monmap = os.path.join(self.folder, "conf"), os.path.join(self.folder, "monmap")
        with open(self.conf, "w") as f:
            f.write(CONF.format(fsid=fsid, port=port, folder=self.folder, osds=OSDS, disk_bytes=self.o.size * 2 + (4 << 30)))
        os.environ["CEPH_CONF"] = self.conf  # fio's engine has no option for it
        run(["monmaptool", "--create", "--fsid", fsid, "--addv", "a", "[v2:127.0.0.1:%d/0]" % port,
             "--enable-all-features", monmap])
        self.make("mon.a")
        run(["ceph-mon", "--conf", self.conf, "--id", "a", "--mkfs", "--monmap", monmap])
        self.daemon("ceph-mon", "a")
        for _ in range(OSDS):
            osd = str(uuid.uuid4())
            number = self.ceph("osd", "new", osd).split()[-1]
            self.make("osd." + number)
            run(["ceph-osd", "--conf", self.conf, "--id", number, "--mkfs", "--osd-uuid", osd])
            self.daemon("ceph-osd", number)
        wait_for(lambda: re.search(r"\b%d osds: %d up" % (OSDS, OSDS), self.ceph("osd", "stat")), self.daemons[0])
        self.ceph("osd", "pool", "create", "bench", "64", "64", "replicated")
        self.ceph("osd", "pool", "application", "enable", "bench", "rbd")
        run(["rbd", "--conf", self.conf, "create", "bench/v", "--size", "%dM" % (self.o.size >> 20)])
        self.fio = ["--ioengine=rbd", "--clientname=admin", "--pool=bench", "--rbdname=v"]
        self.pid = self.daemons[0].pid
        self.fill()

    def make(self, name):
        os.makedirs(os.path.join(self.folder, name))

    def ceph(self, *words):
        return run(["ceph", "--conf", self.conf, "--connect-timeout", "30", *words])

    def daemon(self, program, name):
        self.daemons.append(subprocess.Popen([program, "--conf", self.conf, "--id", name, "--foreground"],
                                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                             stderr=open(os.path.join(self.folder, "log"), "a")))

    def cpu_seconds(self):
        return sum(cpu_seconds(d.pid) for d in self.daemons)

    def counts(self):
        return {"disk_bytes": sum(written_bytes(d.pid) for d in self.daemons)}

    def measure(self, raw, w, device):
        return measure_beside(self, raw, w, self.o, device)

    def stop(self):
        for d in reversed(self.daemons):
            d.send_signal(signal.SIGTERM)
        for d in self.daemons:
            d.wait(60)
