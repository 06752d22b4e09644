#!/usr/bin/python3
"""ready.py SOCKET PIDFILE SECONDS: what systemd does with NOTIFY_SOCKET.

Binds SOCKET and says "bound"; then "ready" when a datagram with READY=1 comes, "died" when the process whose id is in
PIDFILE has ended before, or "late" after SECONDS.
"""
import os
import socket
import sys
import time

path, pidfile, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])


def has_ended():
    try:
        with open(pidfile) as f:
            pid = f.read().strip()
        if not pid:
            return False
        with open("/proc/%s/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second: it was collected between opening and reading
        return os.path.exists(pidfile)


s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if os.path.exists(path):
    os.unlink(path)
s.bind(path)
s.settimeout(0.05)
print("bound", flush=True)
end = time.monotonic() + seconds
while True:
    try:
        if "READY=1" in s.recv(4096).decode(errors="replace").split("\n"):
            print("ready", flush=True)
            break
    except socket.timeout:
        pass
    if has_ended():
        print("died", flush=True)
        break
    if time.monotonic() > end:
        print("late", flush=True)
        break
os.unlink(path)
