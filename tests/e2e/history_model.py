#!/usr/bin/python3
"""Random history of volumes on a real daemon, held against a model: history_model.py QUARRY SOCKET STATE REPOSITORY SEED OPERATIONS

Writes, trims and reads go through libnbd, everything else through the command. A backup in REPOSITORY is restored into a
volume that is in use meanwhile, its filler is killed, and another one ends it. The model, kept in STATE between runs, is a
dictionary of volumes and their snapshots, each a size and a list of cells: blocks in different segments and leaves, by the byte
they are filled with. At the end all of it is read and all differences of one volume are asked for; with 0 operations nothing else is
done.
"""
import json
import os
import pickle
import random
import subprocess
import sys

import nbd

CELLS, BLOCK, SEGMENTS = 30, 4096, 3
VOLUMES_MAX, SNAPSHOTS_MAX = 4, 12


def place(cell):
    return (cell % SEGMENTS << 30) + cell // SEGMENTS * 131 * BLOCK


class Point:
    """A volume as it is, or as it was."""

    def __init__(self, size, cells):
        self.size, self.cells = size, list(cells)  # GiB; (value, version) of each

    def copy(self):
        return Point(self.size, self.cells)

    def has(self, cell):
        return cell % SEGMENTS < self.size

    def inside(self):
        return [cell for cell in range(CELLS) if self.has(cell)]


class Model:
    def __init__(self):
        self.volumes, self.n_names, self.version = {}, 0, 0
        self.backups = set()  # NAME@SNAP of each in the repository, which takes none twice


class World:
    def __init__(self, quarry, socket, repository, model, chance):
        self.quarry, self.socket, self.repository = quarry, socket, repository
        self.model, self.chance = model, chance
        self.counts = {}

    def run(self, *words):
        p = subprocess.run([self.quarry, "--json", *words], capture_output=True, text=True, check=False)
        if p.returncode != 0:
            sys.exit(f"quarry {' '.join(words)} ended with {p.returncode}: {p.stdout}{p.stderr}")
        return json.loads(p.stdout)

    def connect(self, name):
        h = nbd.NBD()
        h.connect_uri(f"nbd+unix:///{name}?socket={self.socket}")
        return h

    def attach(self, name):
        volume = self.model.volumes[name]
        if not volume["attached"]:
            self.run("volume", "attach", name, "--nbd")
            volume["attached"] = True

    def detach(self, name):
        if self.model.volumes[name]["attached"]:
            self.run("volume", "detach", name)
            self.model.volumes[name]["attached"] = False

    def new_name(self, letter):
        self.model.n_names += 1
        return f"{letter}{self.model.n_names}"

    # ---- operations ----

    def create(self):
        if len(self.model.volumes) < VOLUMES_MAX:
            name = self.new_name("v")
            self.run("volume", "create", name, "--size", f"{SEGMENTS}G")
            self.begin(name, Point(SEGMENTS, [(0, 0)] * CELLS))

    def begin(self, name, point, attached=False):
        self.model.volumes[name] = {"attached": attached, "live": point.copy(), "snapshots": {}}

    def write(self, name):
        self.attach(name)
        h = self.connect(name)
        live = self.model.volumes[name]["live"]
        for cell in self.chance.sample(live.inside(), 6):
            self.model.version += 1
            value = self.model.version % 255 + 1
            if self.chance.random() < 0.33:
                value = 0
            if value:
                h.pwrite(bytes([value]) * BLOCK, place(cell))
            else:
                self.chance.choice([h.trim, h.zero])(BLOCK, place(cell))
            if value or live.cells[cell][0]:
                live.cells[cell] = (value, self.model.version)
        h.shutdown()

    def resize(self, name):
        live = self.model.volumes[name]["live"]
        live.size = self.chance.randint(1, SEGMENTS)
        self.run("volume", "resize", name, f"{live.size}G", "--force")
        for cell in range(CELLS):
            if not live.has(cell) and live.cells[cell][0]:
                self.model.version += 1
                live.cells[cell] = (0, self.model.version)

    def snapshot(self, name):
        snapshots = self.model.volumes[name]["snapshots"]
        if len(snapshots) < SNAPSHOTS_MAX:
            snap = self.new_name("s")
            self.run("snapshot", "create", f"{name}@{snap}")
            snapshots[snap] = self.model.volumes[name]["live"].copy()

    def delete_snapshot(self, name):
        snapshots = self.model.volumes[name]["snapshots"]
        if snapshots:
            snap = self.chance.choice(sorted(snapshots))
            self.run("snapshot", "delete", f"{name}@{snap}")
            del snapshots[snap]

    def rollback(self, name):
        volume = self.model.volumes[name]
        if volume["snapshots"]:
            self.detach(name)
            snap = self.chance.choice(sorted(volume["snapshots"]))
            self.run("snapshot", "rollback", f"{name}@{snap}")
            volume["live"] = volume["snapshots"][snap].copy()
            if not self.run("snapshot", "rollback", f"{name}@{snap}").get("unchanged"):
                sys.exit(f"{name} is rolled back to {snap} twice")

    def clone(self, name):
        snapshots = self.model.volumes[name]["snapshots"]
        if snapshots and len(self.model.volumes) < VOLUMES_MAX:
            snap, new = self.chance.choice(sorted(snapshots)), self.new_name("v")
            self.run("volume", "clone", f"{name}@{snap}", new)
            self.begin(new, snapshots[snap])

    def fill(self, snap, new):
        return subprocess.Popen([self.quarry, "backup", "restore", f"{self.repository}/{snap}", new, "--lazy", "--wait"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def restore(self, name):
        snapshots = self.model.volumes[name]["snapshots"]
        if not snapshots or len(self.model.volumes) == VOLUMES_MAX:
            return
        snap, new = self.chance.choice(sorted(snapshots)), self.new_name("v")
        if f"{name}@{snap}" not in self.model.backups:
            self.run("volume", "attach", f"{name}@{snap}", "--nbd")
            self.run("backup", "create", f"{name}@{snap}", self.repository)
            self.run("volume", "detach", f"{name}@{snap}")
            self.model.backups.add(f"{name}@{snap}")
        filler = self.fill(f"{name}@{snap}", new)
        filler.stdout.readline()  # it is attached now
        self.begin(new, snapshots[snap], attached=True)
        if self.chance.random() < 0.7:
            for _ in range(self.chance.randrange(4)):
                self.write(new)
            filler.kill()
            filler.wait()
            self.write(new)
            filler = self.fill(f"{name}@{snap}", new)
        self.write(new)
        said = filler.communicate()[1]
        if filler.returncode != 0 or self.run("volume", "show", new)["fill"]:
            sys.exit(f"{new} is not filled: {said}")

    def delete(self, name):
        self.detach(name)
        self.run("volume", "delete", name, "--snapshots")
        del self.model.volumes[name]

    def operate(self):
        names = sorted(self.model.volumes)
        kinds = [self.write] * 6 + [self.snapshot] * 4
        kinds += [self.delete_snapshot, self.rollback, self.clone, self.restore, self.resize]
        if not names or self.chance.random() < 0.05:
            return self.create()
        if len(names) > 2 and self.chance.random() < 0.05:
            kinds = [self.delete]
        kind = self.chance.choice(kinds)
        self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
        return kind(self.chance.choice(names))

    # ---- judging ----

    def judge_point(self, export, point):
        h = self.connect(export)
        if h.get_size() != point.size << 30:
            sys.exit(f"{export} has {h.get_size()} bytes, not {point.size} GiB")
        for cell in point.inside():
            value = point.cells[cell][0]
            if h.pread(BLOCK, place(cell)) != bytes([value]) * BLOCK:
                sys.exit(f"cell {cell} of {export} is not {value}")
        h.shutdown()

    def judge_changes(self, name, export, point, snap):
        """By the bitmap: what differs is told, and nothing that neither side has touched, but holes."""
        h, since, dirty = nbd.NBD(), self.model.volumes[name]["snapshots"][snap], set()
        h.add_meta_context(f"qemu:dirty-bitmap:{snap}")
        h.connect_uri(f"nbd+unix:///{export}?socket={self.socket}")
        at = 0

        def take(_context, offset, entries, _error):
            nonlocal at
            for length, state in zip(entries[::2], entries[1::2]):
                if state & 1:
                    dirty.update(c for c in range(CELLS) if offset <= place(c) < offset + length)
                offset += length
            at = offset

        while at < h.get_size():
            h.block_status(min(h.get_size() - at, 1 << 30), at, take)
        for cell in point.inside():
            a, b = point.cells[cell], since.cells[cell]
            if a[0] != b[0] and cell not in dirty:
                sys.exit(f"cell {cell} of {export} differs from {snap} and is not dirty")
            if a[1] == b[1] and cell in dirty and (a[0] or b[0]):
                sys.exit(f"cell {cell} of {export} is as in {snap} and dirty")
        h.shutdown()

    def judge(self):
        for name, volume in self.model.volumes.items():
            self.attach(name)
            self.judge_point(name, volume["live"])
            names = sorted(volume["snapshots"])
            for snap in names:
                self.run("volume", "attach", f"{name}@{snap}", "--nbd")
                self.judge_point(f"{name}@{snap}", volume["snapshots"][snap])
                self.judge_changes(name, name, volume["live"], snap)
                other = self.chance.choice(names)
                self.judge_changes(name, f"{name}@{snap}", volume["snapshots"][snap], other)
                self.run("volume", "detach", f"{name}@{snap}")


def main():
    quarry, socket, path, repository, seed, n = sys.argv[1:]
    model = Model()
    if os.path.exists(path):
        with open(path, "rb") as f:
            model = pickle.load(f)
    world = World(quarry, socket, repository, model, random.Random(int(seed)))
    for _ in range(int(n)):
        world.operate()
    world.judge()
    with open(path, "wb") as f:
        pickle.dump(model, f)
    n_snapshots = sum(len(v["snapshots"]) for v in model.volumes.values())
    print(f"{len(model.volumes)} volumes, {n_snapshots} snapshots hold; {world.counts}")


main()
