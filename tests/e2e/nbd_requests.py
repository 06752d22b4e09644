#!/usr/bin/python3
"""nbd_requests.py SOCKET EXPORT SIZE [TEST ...]: requests written by hand, right ones and wrong ones, and what must come back.

Uses libnbd where libnbd can say it and a bare socket where it would refuse to. The export is overwritten; it has SIZE
bytes and begins with zeros.
"""
import errno
import os
import socket
import struct
import sys

import nbd

PATH, EXPORT, SIZE = sys.argv[1], sys.argv[2], int(sys.argv[3])
URI = "nbd+unix:///%s?socket=%s" % (EXPORT, PATH)
checks = 0


def check(claim, what):
    global checks
    checks += 1
    if not claim:
        print("FAILED: " + what)
        sys.exit(1)


def refused(want, what, call):
    """The call must fail with one of these errors, and the connection go on."""
    try:
        call()
    except nbd.Error as e:
        names = [errno.errorcode[w] for w in want]
        check(e.errno in names, "%s: refused with %s, expected %s" % (what, e.errno, " or ".join(names)))
    else:
        check(False, what + ": was not refused")


def dial(**options):
    h = nbd.NBD()
    h.set_strict_mode(0)  # the server must refuse, not the library
    for k, v in options.items():
        getattr(h, k)(v)
    h.connect_uri(URI)
    return h


def whole(call):
    """The whole volume, in requests of what 32 bits can say."""
    for pos in range(0, SIZE, 2 << 30):
        call(min(2 << 30, SIZE - pos), pos)


# ---- what libnbd can say ----

def test_reads_and_writes():
    h = dial()
    check(h.get_size() == SIZE, "size")
    for pos, length in ((0, 4096), (512, 512), (4096 - 512, 1024), (8192 + 512, 3 * 4096), (SIZE - 512, 512), (1 << 20, 1 << 20)):
        data = os.urandom(length)
        h.pwrite(data, pos)
        check(h.pread(length, pos) == data, "read what was written at %d + %d" % (pos, length))
    h.pwrite(b"\1" * 8192, 65536)
    h.pwrite(b"\2" * 512, 65536 + 1024)
    check(h.pread(8192, 65536) == b"\1" * 1024 + b"\2" * 512 + b"\1" * 6656, "a part of a block keeps its neighbours")
    h.pwrite(b"\3" * 4096, 65536, nbd.CMD_FLAG_FUA)
    h.flush()
    h.zero(512, 65536 + 512)
    check(h.pread(2048, 65536) == b"\3" * 512 + b"\0" * 512 + b"\3" * 1024, "zeroing a sector")
    h.trim(1 << 20, 1 << 20)
    check(h.pread(1 << 20, 1 << 20) == b"\0" * (1 << 20), "trimmed blocks read as zeros")
    if h.can_cache():
        h.cache(1 << 20, 0)
    h.shutdown()


def test_large():
    h = dial()
    data = os.urandom(1 << 20) * 32
    h.pwrite(data, 1 << 20)
    check(h.pread(len(data), 1 << 20) == data, "32 MiB in one request")
    check(h.pread(1 << 16, 1 << 20, nbd.CMD_FLAG_DF) == data[:1 << 16], "64 KiB unfragmented")
    try:
        check(h.pread(len(data), 1 << 20, nbd.CMD_FLAG_DF) == data, "32 MiB unfragmented")
    except nbd.Error as e:
        check(e.errno == "EOVERFLOW", "32 MiB unfragmented: refused with %s" % e.errno)
    whole(h.zero)
    check(h.pread(1 << 20, 1 << 20) == b"\0" * (1 << 20), "the whole volume zeroed")
    refused((errno.EINVAL, errno.ENOMEM, errno.EOVERFLOW, errno.ERANGE, errno.ENOTCONN), "a read of 48 MiB",
            lambda: h.pread(48 << 20, 0))
    h = dial()
    check(h.pread(512, 0) == b"\0" * 512, "a new connection after that")


def test_out_of_bounds():
    h = dial()
    refused((errno.EINVAL,), "a read past the end", lambda: h.pread(1024, SIZE - 512))
    refused((errno.EINVAL,), "a read beyond the end", lambda: h.pread(512, SIZE + 512))
    refused((errno.ENOSPC, errno.EINVAL), "a write past the end", lambda: h.pwrite(b"x" * 1024, SIZE - 512))
    refused((errno.ENOSPC, errno.EINVAL), "a write far beyond", lambda: h.pwrite(b"x" * 512, 1 << 62))
    refused((errno.EINVAL,), "a read at the largest offset", lambda: h.pread(512, (1 << 63) - 512))
    refused((errno.EINVAL, errno.ENOSPC), "a trim past the end", lambda: h.trim(1024, SIZE - 512))
    refused((errno.EINVAL, errno.ENOSPC), "zeroes past the end", lambda: h.zero(1024, SIZE - 512))
    refused((errno.EINVAL,), "a status past the end",
            lambda: h.block_status(1024, SIZE - 512, lambda *a: 0) if h.can_meta_context("base:allocation") else h.pread(1024, SIZE - 512))
    refused((errno.EINVAL,), "a read of no bytes past the end", lambda: h.pread(512, SIZE))
    check(h.pread(512, SIZE - 512) is not None, "the connection lives on")


def test_unaligned():
    h = dial()
    for what, call in (("an offset of 1", lambda: h.pread(512, 1)), ("a length of 100", lambda: h.pwrite(b"x" * 100, 0)),
                       ("zeroes of 10", lambda: h.zero(10, 0)), ("a trim at 7", lambda: h.trim(512, 7))):
        refused((errno.EINVAL,), what, call)
    check(h.pread(512, 0) is not None, "the connection lives on")


def test_flags():
    h = dial()
    refused((errno.EINVAL,), "DF on a write", lambda: h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_DF))
    refused((errno.EINVAL,), "an unknown flag", lambda: h.pread(512, 0, 1 << 9))
    refused((errno.EINVAL,), "fast zero on a trim", lambda: h.trim(4096, 0, nbd.CMD_FLAG_FAST_ZERO))
    h.pread(512, 0)
    h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO)
    refused((errno.EOPNOTSUPP,), "fast zero that must not make a hole",
            lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE))


def extents(h, length, pos, flags=0):
    out = []

    def each(_context, _offset, entries, _error):
        out.extend(zip(entries[0::2], entries[1::2]))
        return 0
    h.block_status(length, pos, each, flags)
    return out


def test_block_status():
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.add_meta_context("no:such-context")
    h.connect_uri(URI)
    check(h.can_meta_context("base:allocation") and not h.can_meta_context("no:such-context"), "meta contexts")
    whole(h.trim)
    h.pwrite(b"x" * 8192, 1 << 20)
    h.pwrite(b"x" * 512, (2 << 20) + 512)
    e = extents(h, 4 << 20, 0)
    check(e == [(1 << 20, 3), (8192, 0), ((1 << 20) - 8192, 3), (4096, 0), ((2 << 20) - 4096, 3)] or
          (sum(n for n, _ in e) >= 4 << 20 and e[:4] == [(1 << 20, 3), (8192, 0), ((1 << 20) - 8192, 3), (4096, 0)]),
          "extents: %s" % e)
    e = extents(h, 4 << 20, 0, nbd.CMD_FLAG_REQ_ONE)
    check(len(e) == 1 and e[0] == (1 << 20, 3), "one extent: %s" % e)
    e = extents(h, 512, (1 << 20) + 512)
    check(e[0][1] == 0 and e[0][0] >= 512, "a status of one sector: %s" % e)


def test_structured_holes():
    h = dial()
    whole(h.trim)
    h.pwrite(b"d" * 4096, 1 << 20)
    parts = []

    def chunk(data, offset, status, _error):
        parts.append((len(data), offset, status))
        return 0
    data = bytearray(b"\xff" * (2 << 20))
    buf = h.pread_structured(2 << 20, 0, chunk)
    check(len(buf) == len(data) and bytes(buf[1 << 20:(1 << 20) + 4096]) == b"d" * 4096, "content of a structured read")
    check(bytes(buf[:1 << 20]) == b"\0" * (1 << 20), "holes are zeros")
    check(sum(p[0] for p in parts) == 2 << 20, "the chunks cover the request once: %s" % parts)


def test_many_outstanding():
    h = dial()
    done = []
    bufs = [nbd.Buffer.from_bytearray(bytearray(os.urandom(4096))) for _ in range(200)]
    for i, b in enumerate(bufs):
        h.aio_pwrite(b, i * 4096, lambda error, i=i: done.append((i, error.value)) or 1)
    while len(done) < len(bufs):
        h.poll(1000)
    check(all(e == 0 for _, e in done), "200 writes in flight on one connection")
    for i in (0, 57, 199):
        check(h.pread(4096, i * 4096) == bufs[i].to_bytearray(), "write %d of 200" % i)


def test_simple_replies():
    h = dial(set_request_structured_replies=False)
    check(not h.get_structured_replies_negotiated(), "no structured replies when not asked")
    h.pwrite(b"s" * 4096, 0)
    check(h.pread(4096, 0) == b"s" * 4096, "simple replies")
    refused((errno.EINVAL,), "a read past the end, simply", lambda: h.pread(1024, SIZE - 512))
    refused((errno.EINVAL,), "DF without structured replies", lambda: h.pread(512, 0, nbd.CMD_FLAG_DF))


def test_options():
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_uri(URI)
    names = []
    h.opt_list(lambda name, _description: names.append(name) or 0)
    check(EXPORT in names, "LIST names %s: %s" % (EXPORT, names))
    contexts = []
    h.opt_list_meta_context(lambda name: contexts.append(name) or 0)
    check("base:allocation" in contexts, "LIST_META_CONTEXT: %s" % contexts)
    h.set_export_name("no such thing")
    refused((errno.ENOENT,), "INFO of an unknown export", h.opt_info)
    h.set_export_name(EXPORT)
    h.opt_info()
    check(h.get_size() == SIZE and h.get_block_size(nbd.SIZE_MINIMUM) == 512 and
          h.get_block_size(nbd.SIZE_PREFERRED) == 4096 and h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20, "INFO")
    h.set_export_name("x" * 4096)
    refused((errno.ENOENT, errno.EINVAL, errno.ERANGE, errno.ENAMETOOLONG, errno.EOVERFLOW), "a name of 4096 bytes", h.opt_info)
    h.set_export_name(EXPORT)
    h.opt_go()
    check(h.pread(512, 0) is not None, "GO after all that")


# ---- what only a bare socket can say ----

IHAVEOPT, REPLY_MAGIC = 0x49484156454F5054, 0x3e889045565a9
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED = 1, 2, 3, 5, 6, 7, 8
REP_ACK, ERR = 1, 1 << 31


class Raw:
    """A client that says what it is told to."""

    def __init__(self, flags=3, greet=True):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(PATH)
        if greet:
            magic, opt, server = struct.unpack(">QQH", self.exactly(18))
            check(magic == 0x4e42444d41474943 and opt == IHAVEOPT and server & 3 == 3, "the greeting")
            self.s.sendall(struct.pack(">I", flags))

    def exactly(self, n):
        out = b""
        while len(out) < n:
            b = self.s.recv(n - len(out))
            if not b:
                raise EOFError
            out += b
        return out

    def option(self, number, data=b"", length=None):
        self.s.sendall(struct.pack(">QII", IHAVEOPT, number, len(data) if length is None else length) + data)

    def reply(self, number):
        magic, option, kind, length = struct.unpack(">QIII", self.exactly(20))
        check(magic == REPLY_MAGIC and option == number, "a reply to option %d" % number)
        return kind, self.exactly(length)

    def last_reply(self, number):
        while True:
            kind, data = self.reply(number)
            if kind == REP_ACK or kind & ERR:
                return kind, data

    def request(self, kind, pos, length, data=b"", flags=0, cookie=7, magic=0x25609513):
        self.s.sendall(struct.pack(">IHHQQI", magic, flags, kind, cookie, pos, length) + data)

    def simple_reply(self):
        magic, error, cookie = struct.unpack(">IIQ", self.exactly(16))
        check(magic == 0x67446698, "a simple reply")
        return error, cookie

    def is_closed(self):
        try:
            return self.s.recv(1) == b""
        except ConnectionResetError:
            return True

    def go(self):
        self.option(OPT_GO, struct.pack(">I", len(EXPORT)) + EXPORT.encode() + struct.pack(">H", 0))
        check(self.last_reply(OPT_GO)[0] == REP_ACK, "GO")


def test_export_name():
    for flags, zeros in ((1, 124), (3, 0)):
        r = Raw(flags)
        r.option(OPT_EXPORT_NAME, EXPORT.encode())
        size, _ = struct.unpack(">QH", r.exactly(10))
        check(size == SIZE, "EXPORT_NAME gives the size")
        check(r.exactly(zeros) == b"\0" * zeros, "and %d zeros" % zeros)
        r.request(1, 4096, 4096, b"e" * 4096)
        check(r.simple_reply() == (0, 7), "a write after EXPORT_NAME")
        r.request(0, 4096, 4096)
        check(r.simple_reply() == (0, 7) and r.exactly(4096) == b"e" * 4096, "a read after EXPORT_NAME")
        r.request(2, 0, 0)
        check(r.is_closed(), "DISC ends the connection")
    r = Raw()
    r.option(OPT_EXPORT_NAME, b"nothing of that name")
    check(r.is_closed(), "EXPORT_NAME of an unknown export ends the connection")


def test_bad_options():
    r = Raw()
    r.option(0x7777, b"abc")
    check(r.reply(0x7777)[0] == ERR + 1, "an unknown option is ERR_UNSUP")
    r.option(OPT_LIST, b"x")
    check(r.reply(OPT_LIST)[0] == ERR + 3, "LIST with data is ERR_INVALID")
    r.option(OPT_GO, b"\0")
    check(r.reply(OPT_GO)[0] == ERR + 3, "a GO of one byte is ERR_INVALID")
    r.option(OPT_GO, struct.pack(">I", 4000) + b"v" + struct.pack(">H", 0))
    check(r.reply(OPT_GO)[0] == ERR + 3, "a name longer than its option is ERR_INVALID")
    r.option(OPT_GO, struct.pack(">I", 1) + b"v" + struct.pack(">H", 40))
    check(r.reply(OPT_GO)[0] == ERR + 3, "more information requests than bytes are ERR_INVALID")
    r.option(OPT_STRUCTURED, b"x")
    check(r.reply(OPT_STRUCTURED)[0] == ERR + 3, "STRUCTURED_REPLY with data is ERR_INVALID")
    r.option(0x7778, b"z" * 70000)
    check(r.reply(0x7778)[0] & ERR, "a long option is refused")
    r.go()
    r.request(0, 0, 512)
    check(r.simple_reply()[0] == 0, "and the connection works after all these")
    r = Raw()
    r.option(OPT_LIST, length=0xffffffff)
    r.s.shutdown(socket.SHUT_WR)
    check(drained(r), "an option of 4 GiB does not hold the server up")
    r = Raw()
    r.s.sendall(b"\xff" * 64)
    check(drained(r), "garbage instead of an option ends the connection")
    r = Raw(flags=0x80000003)
    check(drained(r), "an unknown client flag ends the connection")
    r = Raw()
    r.option(OPT_ABORT)
    check(r.reply(OPT_ABORT)[0] == REP_ACK and r.is_closed(), "ABORT is answered and ends the connection")


def drained(r):
    """Reads what still comes; true when the connection has ended."""
    try:
        while r.s.recv(65536):
            pass
        return True
    except ConnectionResetError:
        return True
    except socket.timeout:
        return False


def test_bad_requests():
    r = Raw()
    r.go()
    r.request(99, 0, 0)
    check(r.simple_reply() == (errno.EINVAL, 7), "an unknown command is EINVAL")
    r.request(1, SIZE, 4096, b"x" * 4096)
    check(r.simple_reply()[0] in (errno.ENOSPC, errno.EINVAL), "a write past the end: its payload is skipped")
    r.request(1, 0, 512, b"y" * 512, flags=0x4000)
    check(r.simple_reply()[0] == errno.EINVAL, "an unknown flag on a write: its payload is skipped")
    r.request(0, 0, 512)
    check(r.simple_reply()[0] == 0 and len(r.exactly(512)) == 512, "the connection is still in step")
    r.request(7, 0, 4096)
    check(r.simple_reply()[0] == errno.EINVAL, "BLOCK_STATUS without a context is EINVAL")
    r.request(0, 0, 512, magic=0x12345678)
    check(drained(r), "a wrong magic ends the connection")
    r = Raw()
    r.go()
    r.request(1, 0, 0xfffffe00, b"")
    r.s.shutdown(socket.SHUT_WR)
    check(drained(r), "a write of 4 GiB that never comes ends with its client")


def test_leaving():
    """Forty requests in flight and away; then a client that never reads its replies; both beside one that works."""
    h = dial()
    for _ in range(10):
        r = Raw()
        r.go()
        for i in range(40):
            r.request(1, i * 65536, 65536, b"l" * 65536, cookie=i)
        r.s.close()
        h.pwrite(b"w" * 4096, SIZE - 4096)
    silent = [Raw(greet=False) for _ in range(8)]
    deaf = Raw()
    deaf.go()
    deaf.s.setblocking(False)
    try:
        for i in range(400):
            deaf.request(0, 0, 1 << 20, cookie=i)
    except BlockingIOError:
        pass
    for i in range(50):
        h.pwrite(struct.pack(">Q", i) * 64, 0)
        check(h.pread(512, 0) == struct.pack(">Q", i) * 64, "a working client beside deaf and silent ones")
    for r in silent + [deaf]:
        r.s.close()
    check(h.pread(4096, SIZE - 4096) == b"w" * 4096, "and after they left")


def test_trim_whole():
    """What the kernel's client sends: up to 4 GiB - 512 in one request."""
    r = Raw()
    r.go()
    length = min(SIZE, (1 << 32) - 512)
    r.request(4, 0, length)
    check(r.simple_reply()[0] == 0, "a trim of %d bytes" % length)
    r.request(6, 0, length, flags=0)
    check(r.simple_reply()[0] == 0, "zeroes of %d bytes" % length)


for name, test in list(globals().items()):
    if name.startswith("test_") and (len(sys.argv) == 4 or name in sys.argv[4:]):
        test()
        print("ok %s" % name, flush=True)
print("%d checks" % checks)
