#!/usr/bin/python3
"""fio.py: a Linux guest under QEMU runs the job files on its disk, a volume over vhost-user-blk.

  fio.py --initramfs FILE --kernel FILE --socket PATH --jobs FOLDER --restart COMMAND

  --jobs     the folder that the initramfs has as /fio-jobs
  --restart  ends the server and starts it again, between writing and verifying

The volume is overwritten; 512 MiB or more. Exit status 0: all checks passed.
"""
import configparser
import os
import re
import subprocess

from machine import VHOST_MACHINE, Guest, arguments, check, main, no_errors, vhost_disk

p = arguments(__doc__, "--socket", "--jobs", "--restart")
o = p.parse_args()

FILL = "seqwrite-1m.fio"  # first, as the others' heads say: there is something to read then
VERIFY = "verify.fio"
VERIFIED_MIB = 24  # of 256: an emulated processor takes long over checksums
# A second each, and the figures do not matter.
SHORTER = "s/^runtime=.*/runtime=1/; s/^ramp_time=.*/ramp_time=0/; s/^size=256m$/size=%dm/" % VERIFIED_MIB
# Of fio's terse output: job, error, KiB read, KiB written.
FIGURES = """awk -F';' '$1 == "3" { print $3, $5, $6, $47 }'"""
DAMAGE = "dd if=/dev/zero of=/dev/vda bs=1M count=%d oflag=direct conv=fsync 2>/dev/null" % VERIFIED_MIB


def command(name, options=""):
    """What the head of the job file says for a guest, made shorter."""
    with open(os.path.join(o.jobs, name)) as f:
        line = re.search(r"^# *(sed .* %s \| fio -)$" % re.escape(name), f.read(), re.M)
    check(line, name + " says how to run it in a guest")
    head, fio = line.group(1).replace("/dev/vdX", "/dev/vda").rsplit("|", 1)
    return """cd /fio-jobs && %s | sed '%s' > /tmp/job && %s --minimal %s < /tmp/job > /tmp/figures
status=$?; %s /tmp/figures; exit $status""" % (head, SHORTER, fio.replace(" -", ""), options + " -", FIGURES)


def directions(name):
    """Of each job in the file, by its name: whether it reads, whether it writes."""
    jobs = configparser.ConfigParser(interpolation=None, allow_no_value=True)
    jobs.read(os.path.join(o.jobs, name))
    does = {job: jobs[job]["rw"] for job in jobs.sections() if job != "global"}
    return {job: ("read" in rw or "rw" in rw, "write" in rw or "rw" in rw) for job, rw in does.items()}


def run_jobs(guest, name, jobs, options=""):
    """Runs the file: exactly these jobs end without error, and have done I/O. KiB read and written, by job."""
    status, out = guest.run(command(name, options))
    figures = {}
    for line in out.split("\n"):
        words = line.split()
        if len(words) == 4 and words[0] in jobs:
            figures[words[0]] = [int(word) for word in words[1:]]
    did = {job: (error, read > 0, written > 0) for job, (error, read, written) in figures.items()}
    wanted = {job: (0,) + way for job, way in jobs.items()}
    check(status == 0 and did == wanted, ("%s %s" % (name, options)).strip(), "%s\n%s, not %s" % (out, did, wanted))
    print("     KiB read, written: " + ", ".join("%s %d %d" % (job, f[1], f[2]) for job, f in figures.items()))
    return figures


def verify(guest):
    both, whole = directions(VERIFY), VERIFIED_MIB * 1024
    wrote = run_jobs(guest, VERIFY, both)
    check((wrote["write"][2], wrote["check"][1]) == (whole, whole), "it wrote and read all of it", wrote)
    subprocess.run(o.restart, shell=True, timeout=120, check=True)
    again = run_jobs(guest, VERIFY, {"check": both["check"]}, "--section=check")
    check(again["check"][1] == whole, "the daemon was killed: all of it is there", again)
    status, out = guest.run(DAMAGE + "\n" + command(VERIFY, "--section=check"))
    check(status != 0 and "verify: bad" in out, "it finds what somebody else wrote", out)


def run(folder):
    guest = Guest(folder, o, vhost_disk(o.socket, 2), VHOST_MACHINE)
    try:
        guest.wait_up()
        check(True, "the guest is up")
        names = sorted((name for name in os.listdir(o.jobs) if name != VERIFY), key=lambda name: (name != FILL, name))
        check(len(names) > 1, "there are job files")
        for name in names:
            run_jobs(guest, name, directions(name))
        verify(guest)
        no_errors(guest)
        guest.power_off()
    finally:
        guest.end()


main(run)
