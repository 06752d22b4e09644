"""bench_lib: what the benchmarks share: options, servers, measuring with fio, the device below, what is kept.

A target is a server and what fio needs to find it: `fio` are its options, `pid` its process (None: there is no server),
`client` another program to run instead of fio, or None.
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
TICK = os.sysconf("SC_CLK_TCK")

# name: fio's options
WORKLOADS = {
    "seqwrite-1m": dict(rw="write", bs="1m", iodepth=8),
    "seqread-1m": dict(rw="read", bs="1m", iodepth=8),
    "randread-4k-qd32": dict(rw="randread", bs="4k", iodepth=32),
    "randread-4k-qd1": dict(rw="randread", bs="4k", iodepth=1),
    "randread-4k-4conn": dict(rw="randread", bs="4k", iodepth=16, numjobs=4),
    "randwrite-4k-qd32": dict(rw="randwrite", bs="4k", iodepth=32),
    "randwrite-4k-qd1": dict(rw="randwrite", bs="4k", iodepth=1),
    "randwrite-4k-4conn": dict(rw="randwrite", bs="4k", iodepth=16, numjobs=4),
    "mixed-70-30": dict(rw="randrw", rwmixread=70, bs="4k", iodepth=32),
    "sync-write-qd1": dict(rw="randwrite", bs="4k", iodepth=1, sync=True),
    "seqread-1m-overwritten": dict(rw="read", bs="1m", iodepth=8),
    "seqread-1m-straightened": dict(rw="read", bs="1m", iodepth=8, straighten=True),
}

# what our own client calls these loads; it sends them over one queue, or numjobs of them
VHOST_LOADS = {"write": "write", "read": "read", "randread": "randread", "randwrite": "randwrite", "randrw": "rw70"}


# ---- options ----

def parser(story, short, size, runtime):
    p = argparse.ArgumentParser(description=story, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--short", action="store_true", help="%s: shows that it works, says little about speed" % short)
    p.add_argument("--size", default=None, help="of each volume (default %s)" % size)
    p.add_argument("--runtime", type=float, default=None, help="seconds of each measurement (default %g)" % runtime)
    p.add_argument("--dir", default=None, help="where the files go (default build/bench); no tmpfs")
    p.add_argument("--out", default=None, help="folder of the results (default build/bench)")
    return p


def folders(o, part=""):
    """Fills in where files and results go; `part` is a folder of its own in what the user, or the build, names."""
    o.build = os.path.join(TOP, os.environ.get("BUILD", "build"))
    o.out = os.path.abspath(os.path.join(o.out or os.path.join(o.build, "bench"), part))
    o.dir = os.path.abspath(o.dir or o.out)
    os.makedirs(o.dir, exist_ok=True)
    os.makedirs(o.out, exist_ok=True)


def names(p, what, text, known):
    """The words of a list that the user gave, each of which must be known."""
    words = [w for w in text.split(",") if w]
    for w in words:
        if w not in known:
            p.error("there is no %s %s; there are: %s" % (what, w, ", ".join(known)))
    return words


def check_room(folder, need):
    if file_system(folder) in ("tmpfs", "ramfs"):
        sys.exit("bench: %s is in memory (tmpfs); give a folder on a disk with --dir" % folder)
    if shutil.disk_usage(folder).free < need:
        sys.exit("bench: %s has less than %d GiB free" % (folder, need >> 30))


def size_of(text):
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    return int(text[:-1]) << units[text[-1].upper()] if text[-1].upper() in units else int(text)


# ---- the device below ----

class Device:
    """Counters of the block device that a folder lies on; None where it cannot be told (an overlay, a network)."""

    def __init__(self, folder):
        st = os.stat(folder)
        path = "/sys/dev/block/%d:%d" % (os.major(st.st_dev), os.minor(st.st_dev))
        self.path = path if os.path.exists(path + "/stat") else None
        self.name = os.path.basename(os.path.realpath(path)) if self.path else "unknown"

    def read(self):
        if not self.path:
            return None
        with open(self.path + "/stat") as f:
            fields = f.read().split()
        return int(fields[2]) * 512, int(fields[6]) * 512


def file_system(folder):
    return subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout.strip()


# ---- targets ----

class Absent(Exception):
    """A target that cannot be measured here."""


class Target:
    """Something that fio can be pointed at, and what is needed to start and stop it."""
    pid, fio, process, client = None, [], None, None
    runtime = None  # seconds of each measurement, where it is not everybody's

    def __init__(self, name, o, folder):
        self.name, self.o, self.folder = name, o, folder
        os.makedirs(folder, exist_ok=True)
        self.socket = os.path.join(folder, "s")

    def serve(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=open(os.path.join(self.folder, "log"), "a"))
        self.pid = self.process.pid
        wait_for(lambda: answers(self.socket), self.process)

    def uri(self, export=""):
        return "nbd+unix:///%s?socket=%s" % (export, self.socket)

    def nbd(self, export=""):
        self.fio = ["--ioengine=nbd", "--uri=" + self.uri(export)]

    def vhost(self, path, ring):
        """Our own client instead of fio."""
        self.client = [os.path.join(self.o.build, "quarry-vhost-bench"), "--socket", path, "--size", str(self.o.size)] + ring

    def fill(self):
        if self.client:
            run(self.client + ["--rw", "write", "--bs", "1m", "--iodepth", "8", "--once"])
        else:
            run(["fio", "--name=fill", "--rw=write", "--bs=1m", "--size=%d" % self.o.size, "--iodepth=8", "--end_fsync=1"] + self.fio)

    def straighten(self):
        return False

    def cpu_seconds(self):
        """Of all that serves; None: there is no server."""
        return cpu_seconds(self.pid) if self.pid else None

    def counts(self):
        """What else is counted while it is measured, by name."""
        return {}

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


class FileTarget(Target):
    """A file that is written through, so that no write has to allocate."""

    def make_file(self, name):
        path = os.path.join(self.folder, name)
        run(["fio", "--name=fill", "--filename=" + path, "--rw=write", "--bs=1m", "--size=%d" % self.o.size, "--ioengine=io_uring",
             "--direct=1", "--iodepth=8", "--end_fsync=1"])
        return path


class Raw(FileTarget):
    def start(self):
        self.path = self.make_file("raw.img")
        self.fio = ["--ioengine=io_uring", "--direct=1", "--filename=" + self.path]


class QuarryTarget(Target):
    """A daemon with one disk."""

    def begin(self, disk_bytes, is_reserved=True, node="bench", more=""):
        """`more` are lines of its configuration."""
        os.makedirs(os.path.join(self.folder, "data"), exist_ok=True)
        self.control = os.path.join(self.folder, "c")
        with open(os.path.join(self.folder, "quarry.conf"), "w") as f:
            f.write('node = { name = "%s"; data_dir = "%s/data"; };\ncontrol = { socket = "%s"; };\n'
                    'nbd = { socket = "%s"; };\nvhost = { dir = "%s/v"; };\n%s'
                    % (node, self.folder, self.control, self.socket, self.folder, more))
        self.launch()
        wait_for(lambda: self.quarry("status", check=False), self.process)
        self.disk = os.path.join(self.folder, "d1.img")
        self.quarry("disk", "add", self.disk, "--size", str(disk_bytes), *(["--reserve"] if is_reserved else []))

    def launch(self):
        self.serve([os.path.join(self.o.build, "quarryd"), "--config", os.path.join(self.folder, "quarry.conf")])

    def ask(self, *words, check=True):
        """What the command prints, or None."""
        r = subprocess.run([os.path.join(self.o.build, "quarry"), "--socket", self.control, *words],
                           capture_output=True, text=True)
        if check and r.returncode:
            sys.exit("bench: quarry %s: %s" % (" ".join(words), r.stderr.strip()))
        return r.stdout if r.returncode == 0 else None

    def quarry(self, *words, check=True):
        return self.ask(*words, check=check) is not None


class Qcow2Target(Target):
    """A qcow2 image behind qemu-nbd."""

    def make(self, size):
        self.path = os.path.join(self.folder, "image.qcow2")
        run(["qemu-img", "create", "-q", "-f", "qcow2", self.path, str(size)])

    def serve_image(self):
        self.serve(["qemu-nbd", "-f", "qcow2", "--cache=none", "--aio=io_uring", "-e", "16", "-t", "-k", self.socket, self.path])
        self.nbd()


def port_free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(path):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        return True
    except OSError:
        return False
    finally:
        s.close()


def wait_for(claim, process, seconds=60):
    end = time.monotonic() + seconds
    while not claim():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit("bench: %s did not start" % process.args[0])
        time.sleep(0.05)


def is_installed(program, target):
    if not shutil.which(program):
        print("%s: %s is not installed" % (target, program))
    return bool(shutil.which(program))


def run(command):
    r = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if r.returncode:
        sys.exit("bench: %s\n%s%s" % (" ".join(command), r.stdout, r.stderr))
    return r.stdout


# ---- measuring ----

def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def written_bytes(pid):
    """What the process caused to be written to devices."""
    with open("/proc/%d/io" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("write_bytes:"))


def fio_arguments(target, w, o):
    jobs = w.get("numjobs", 1)
    a = ["fio", "--output-format=json", "--name=bench", "--rw=" + w["rw"], "--bs=" + w["bs"], "--iodepth=%d" % w["iodepth"],
         "--numjobs=%d" % jobs, "--group_reporting=1", "--size=%d" % o.size, "--time_based=1",
         "--runtime=%dms" % ((target.runtime or o.runtime) * 1000),  # without a unit fio takes whole seconds only
         "--norandommap=1", "--randrepeat=0", "--percentile_list=50:99:99.9"]
    if "rwmixread" in w:
        a.append("--rwmixread=%d" % w["rwmixread"])
    if w.get("sync"):
        # fio's NBD engine knows fsync only; a server does what fdatasync does to the file
        a.append("--fdatasync=1" if target.pid is None else "--fsync=1")
    return a + target.fio


def measure_by_fio(target, w, o):
    said = run(fio_arguments(target, w, o))  # its NBD engine says a line of its own first
    job = json.loads(said[said.index("{"):])["jobs"][0]
    sides = [job[side] for side in ("read", "write") if job[side]["total_ios"]]
    if job["error"] or not sides:
        sys.exit("bench: fio reports error %d on %s" % (job["error"], target.name))
    main = max(sides, key=lambda s: s["total_ios"])
    r = {"iops": sum(s["iops"] for s in sides), "bytes_per_s": sum(s["bw_bytes"] for s in sides),
         "ios": sum(s["total_ios"] for s in sides), "bytes": sum(s["io_bytes"] for s in sides),
         "mean_us": main["lat_ns"]["mean"] / 1000, "p99_us": main["clat_ns"]["percentile"]["99.000000"] / 1000,
         "wanted": [job["read"]["io_bytes"], job["write"]["io_bytes"]]}
    r["client_cpu_us_per_io"] = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] * 1000 / r["ios"]
    if w.get("sync") and job["sync"]["total_ios"]:
        r["sync_mean_us"] = job["sync"]["lat_ns"]["mean"] / 1000
    return r


def measure_by_client(target, w, o):
    load = "syncwrite" if w.get("sync") else VHOST_LOADS[w["rw"]]
    said = json.loads(run(target.client + ["--rw", load, "--bs", w["bs"], "--iodepth", str(w["iodepth"]),
                                           "--queues", str(w.get("numjobs", 1)), "--runtime", "%g" % o.runtime]))
    reads = {"read": 1, "randread": 1, "rw70": 0.7}.get(load, 0)
    nbytes = said["ios"] * said["bs"]
    r = {"iops": said["iops"], "bytes_per_s": said["bytes_per_s"], "ios": said["ios"], "bytes": nbytes,
         "mean_us": said["mean_us"], "p99_us": said["p99_us"], "wanted": [nbytes * reads, nbytes * (1 - reads)],
         "client_cpu_us_per_io": said["cpu_s"] / max(1, said["ios"]) * 1e6}
    if w.get("sync"):
        # fio tells the write's time and the flush's apart
        r.update(sync_mean_us=said["flush_mean_us"], mean_us=said["mean_us"] - said["flush_mean_us"])
    return r


def measure(target, w, o, device):
    cpu, counts = target.cpu_seconds() or 0, target.counts()
    before, start = device.read(), time.monotonic()
    r = (measure_by_client if target.client else measure_by_fio)(target, w, o)
    seconds, after = time.monotonic() - start, device.read()
    cpu = (target.cpu_seconds() or 0) - cpu
    r.update(cpu_us_per_io=cpu / r["ios"] * 1e6 if target.pid else None, cpu_cores=cpu / seconds)
    r.update({name: n - counts[name] for name, n in target.counts().items()})
    wanted = r.pop("wanted")
    if before:
        moved = [a - b for a, b in zip(after, before)]
        r["device_share"] = min(m / n for m, n in zip(moved, wanted) if n)
        r["device_bytes"] = moved
    return r


def measure_beside(target, base, w, o, device, key="raw", ready=lambda: None):
    """The base is measured right before and right after the target; ready() is called right before the target."""
    before = measure(base, w, o, device)
    ready()
    r = measure(target, w, o, device)
    after = measure(base, w, o, device)
    ratio = r["iops"] / ((before["iops"] + after["iops"]) / 2)
    r.update({key + "_before": before, key + "_after": after, "ratio": ratio})
    return r


# ---- telling ----

def spread(r, key="raw"):
    """How far the two measurements before and after lie from their mean, in percent."""
    before, after = r[key + "_before"]["iops"], r[key + "_after"]["iops"]
    return abs(before - after) / (before + after) * 100


def cpu_text(r):
    return "%.1f" % r["cpu_us_per_io"] if r["cpu_us_per_io"] is not None else "-"


def device_text(r):
    share = r.get("device_share")
    return "?" if share is None else "memory" if share < 0.02 else "%.2f" % share


def goal_line(what, target, text, got, is_reached):
    return "%-24s %-14s %-26s %6.2f  %s" % (what, target, text, got, "reached" if is_reached else "MISSED")


def machine(o, device):
    with open("/proc/cpuinfo") as f:
        model = next((l.split(":")[1].strip() for l in f if l.startswith("model name")), "?")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "device": device.name,
            "file_system": file_system(o.dir), "size_bytes": o.size, "runtime_s": o.runtime,
            "fio": run(["fio", "--version"]).strip(), "date": time.strftime("%Y-%m-%d")}


def keep(o, lines, values):
    with open(os.path.join(o.out, "table.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    with open(os.path.join(o.out, "results.json"), "w") as f:
        json.dump(values, f, indent=1)
    print("kept in %s: table.txt, results.json" % os.path.relpath(o.out))


@contextlib.contextmanager
def workplace(o):
    """A folder and a list of targets; at the end, however it comes, the targets are stopped and the folder is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder, targets = tempfile.mkdtemp(prefix="work.", dir=o.dir), []
    try:
        yield folder, targets
    finally:
        for t in targets:
            t.stop()
        shutil.rmtree(folder, ignore_errors=True)
