#!/usr/bin/python3
"""image.py: a second reading of docs/on-disk-format.md, to know where on a disk's file what lies.

  image.py where IMAGE        prints JSON: {"superblock": [offset ...] newest first, "journal": [offset of each valid journal
                              block, oldest first], "trees": [...], "tree record": [...], "volumes": [...],
                              "volume record": [...], "root": [...], "leaf": [...], "data": [[offset, volume block] ...],
                              "count index": [...], "counts": [...], "deltas": [...]}, all in bytes
  image.py flip IMAGE OFFSET [BIT]      turns one bit over (bit 0 of the byte unless told)

It shares no code with the daemon, so it also shows that the description is enough to read a disk with.
"""
import json
import struct
import sys

BLOCK, POINTERS, JOURNAL_START = 4096, 256, 32


def crc32c_table():
    table = []
    for i in range(256):
        c = i
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
        table.append(c)
    return table


TABLE = crc32c_table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ TABLE[(crc ^ b) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Pointer:
    def __init__(self, raw):
        low, high = struct.unpack("<QQ", raw)
        self.crc, self.block, self.epoch = low & 0xFFFFFFFF, low >> 32 | (high & 0xFFFF) << 32, high >> 16


class Image:
    def __init__(self, path):
        self.f = open(path, "rb")
        self.found = {}
        self.superblocks = sorted(filter(None, map(self.superblock, range(4))), key=lambda s: -s["checkpoint"])

    def block(self, n):
        self.f.seek(n * BLOCK)
        return self.f.read(BLOCK)

    def superblock(self, slot):
        b = self.block(slot * 8)
        if b[:8] != b"QUARRYD1" or struct.unpack_from("<I", b, 8)[0] != crc32c(b[:8] + b"\0\0\0\0" + b[12:]):
            return None
        checkpoint, n_blocks, journal, replay = struct.unpack_from("<QQQQ", b, 88)
        return {"slot": slot, "disk": b[40:56], "checkpoint": checkpoint, "n_blocks": n_blocks, "journal": journal,
                "replay": replay, "trees": Pointer(b[136:152]), "n_trees": struct.unpack_from("<I", b, 152)[0],
                "n_volumes": struct.unpack_from("<I", b, 156)[0], "volumes": Pointer(b[160:176]),
                "counts": Pointer(b[176:192]), "deltas": Pointer(b[192:208])}

    def tell(self, what, block):
        self.found.setdefault(what, []).append(block * BLOCK)

    def pointers(self, block):
        b = self.block(block)
        return [Pointer(b[i * 16:i * 16 + 16]) for i in range(POINTERS)]

    def walk(self, root, height, page_name):
        """(index, pointer) of what a tree of this height points to."""
        todo = [(root, height, 0)] if root.block else []
        while todo:
            p, h, first = todo.pop()
            if h == 0:
                yield first, p
                continue
            self.tell(page_name(h), p.block)
            todo.extend((c, h - 1, first + i * POINTERS ** (h - 1)) for i, c in enumerate(self.pointers(p.block)) if c.block)

    def table(self, root, n_slots, page, record):
        height = 0 if n_slots == 0 else 1
        while n_slots > POINTERS ** height:
            height += 1
        for _, p in self.walk(root, height, lambda h: page):
            self.tell(record, p.block)
            yield p.block

    def where(self):
        sb = self.superblocks[0]
        self.found["superblock"] = [s["slot"] * 8 * BLOCK for s in self.superblocks]
        for record in list(self.table(sb["trees"], sb["n_trees"], "trees", "tree record")):
            b = self.block(record)
            height, root = b[4], Pointer(b[40:56])
            for index, p in self.walk(root, height, lambda h, top=height: "leaf" if h == 1 else "root" if h == top else "page"):
                self.found.setdefault("data", []).append([p.block * BLOCK, index])
        list(self.table(sb["volumes"], sb["n_volumes"], "volumes", "volume record"))
        list(self.table(sb["counts"], (sb["n_blocks"] + 2047) // 2048, "count index", "counts"))
        if sb["deltas"].block:
            self.tell("deltas", sb["deltas"].block)
        self.journal(sb)
        return self.found

    def journal(self, sb):
        sequence = sb["replay"]
        self.found["journal"] = []
        while True:
            at = JOURNAL_START + sequence % sb["journal"]
            b = self.block(at)
            magic, crc, found = struct.unpack_from("<IIQ", b)
            if magic != 0x314A5551 or found != sequence:
                return
            if crc != crc32c(b[:4] + b"\0\0\0\0" + b[8:], crc32c(sb["disk"])):
                return
            self.tell("journal", at)
            sequence += 1


def flip(path, offset, bit):
    with open(path, "r+b") as f:
        f.seek(offset)
        b = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([b ^ 1 << bit]))


if sys.argv[1] == "where":
    print(json.dumps(Image(sys.argv[2]).where()))
elif sys.argv[1] == "flip":
    flip(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
else:
    sys.exit(__doc__)
