# roaming_client.py: for nbdsh: writes one block of the volume v after the other, and reads one back; looks for it at each node until one
# serves it. A write whose connection was lost may be there or not, once.  arguments: FOLDER NODE ...
# In the folder: `client` is what it says; `reset` asks for the longest pause until now; `enough` ends it.
import os, random, sys, threading, time
d, nodes = sys.argv[1], sys.argv[2:]
out = open(d + "/client", "w", buffering=1)
done, doubt = {}, {}
class Late(Exception):
    pass
def await_until(c, is_done): # a node that stands still says nothing
    end = time.monotonic() + 1
    while not is_done():
        if time.monotonic() > end or c.poll(100) < 0:
            raise Late
def connect():
    while True:
        for n in nodes:
            c = nbd.NBD()
            try:
                c.aio_connect_uri("nbd+unix:///v?socket=%s/%s/nbd.sock" % (d, n))
                await_until(c, lambda: not c.aio_is_connecting())
                if c.aio_is_ready():
                    return c
            except (nbd.Error, Late):
                pass
        threading.Event().wait(0.02)
def write(block, data):
    cookie = c.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), block * 4096)
    await_until(c, lambda: c.aio_command_completed(cookie))
def read(block):
    to = nbd.Buffer(4096)
    cookie = c.aio_pread(to, block * 4096)
    await_until(c, lambda: c.aio_command_completed(cookie))
    return bytes(to.to_bytearray())
def judge(block, data):
    got = int.from_bytes(data[:8], "little")
    if data != got.to_bytes(8, "little") * 512 or got not in {done.get(block, 0)} | doubt.get(block, set()):
        out.write("wrong: block %d is %d, not %d or %s\n" % (block, got, done.get(block, 0), doubt.get(block)))
        os._exit(1)
    done[block] = got
    doubt.pop(block, None)
c, n, last, worst = connect(), 0, time.monotonic(), 0
out.write("begun\n")
while not os.path.exists(d + "/enough"):
    n += 1
    block, looked = 256 + random.randrange(2048), 256 + random.randrange(2048)
    try:
        write(block, n.to_bytes(8, "little") * 512)
        done[block] = n
        doubt.pop(block, None)
        judge(looked, read(looked))
    except (nbd.Error, Late):
        if done.get(block) != n:
            doubt.setdefault(block, set()).add(n)
        c = connect()
        continue
    now = time.monotonic()
    worst, last = max(worst, now - last), now
    if os.path.exists(d + "/reset"):
        out.write("pause %d\n" % (worst * 1000))
        worst = 0
        os.unlink(d + "/reset")
for block in range(256, 256 + 2048):
    judge(block, read(block))
out.write("good %d\n" % n)
