#!/usr/bin/env python3
"""A control server that stands in for quarryd, for what a good daemon never does and for what is slow to provoke.

    cli_fake.py SOCKET FOLDER [--tcp PORT_FILE TOKEN]

It keeps volumes in memory and their data in files of FOLDER, served by nbdkit while they are attached. FOLDER/mode, when it
exists, holds one word that spoils every answer: close, html, array, empty, hang, refuse, unhealthy, bad-nbd, which lets
writes to attached volumes fail, lossy-nbd, which loses them, unmade, which shows no volume as long as it can, or unattached,
which shows none of their attachments. FOLDER/requests gets a line for every request: method, path, body.

A snapshot of a volume is a qcow2 file with a dirty bitmap for every earlier snapshot, served by qemu-nbd: what changed since it.
FOLDER/no-changes, when it exists, lets that be a secret.
"""

import concurrent.futures
import http.server
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
import uuid

import nbd

NODE = {"name": "n1", "state": "running", "labels": {"zone": "a", "rack": "r1"}, "version": "0.1.0",
        "started_at": "2025-01-31T12:34:56Z", "uptime_s": 93784, "disks": 1, "attached_volumes": 0,
        "cache_bytes": 268435456, "memory_bytes": 50000000,
        "nbd": {"socket": "/run/quarry/nbd.sock", "listen": "", "connections": 3}}
LATENCY = {"count": 4, "sum_ns": 400000, "p50_ns": 90000, "p99_ns": 200000}
COUNTERS = {"reads": 10, "writes": 20, "trims": 3, "zeroes": 2, "flushes": 4, "maps": 1, "read_bytes": 40960,
            "write_bytes": 81920, "trim_bytes": 4096, "errors": 0, "no_space": 0, "checksum_errors": 0, "io_errors": 0,
            "cache_hits": 5, "cache_misses": 1,
            "read_latency": LATENCY, "write_latency": LATENCY, "flush_latency": LATENCY}
POOL = {"name": "default", "uuid": "5b0d6e2c-5a0a-4a56-8a6e-111111111111", "replicas": 1, "min_replicas": 1,
        "failure_domain": "node", "disks": 1, "volumes": 0, "size_bytes": 10 << 30, "used_bytes": 1 << 30,
        "free_bytes": 9 << 30, "provisioned_bytes": 0}
EVENTS = [{"sequence": 1, "time": "2025-01-31T12:34:56.123Z", "level": "notice", "code": "disk-added",
           "object": "disk d1", "message": "added to pool default"},
          {"sequence": 2, "time": "2025-01-31T12:34:57.000Z", "level": "error", "code": "damage",
           "object": "disk d1", "message": "block 7 \u001b[31mis damaged", "more": 41,
           "last_time": "2025-01-31T12:39:00.000Z"}]


def next_data(f, at, size):
    """Where the next data of a file with holes begin."""
    try:
        return os.lseek(f.fileno(), at, os.SEEK_DATA)
    except OSError:  # none follow
        return size


class Refusal(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


class State:
    """Everything the server knows; requests take turns."""

    def __init__(self, folder):
        self.adding, self.is_looked_at = [], threading.Event()
        self.folder, self.lock = folder, threading.Lock()
        self.volumes, self.servers, self.pools = {}, {}, {"default": dict(POOL)}
        self.disks = {}
        self.snapshots = {}  # volume -> its snapshots, oldest first
        self.n_snapshots = 0
        self.top_asked = 0
        # One thread for good: a child that ends with its parent ends with the thread that made it.
        self.starter = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def mode(self):
        try:
            with open(os.path.join(self.folder, "mode"), encoding="utf-8") as f:
                return f.read().strip()
        except FileNotFoundError:
            return ""

    def volume(self, name):
        if name not in self.volumes:
            raise Refusal(404, "not-found", f"there is no volume '{name}'; see 'quarry volume list'")
        return self.volumes[name]

    # ---- volumes ----

    def volume_create(self, body):
        name = body["name"]
        if name in self.volumes and self.volumes[name]["size_bytes"] != body["size_bytes"]:
            raise Refusal(409, "exists", f"volume '{name}' exists with another size")
        if name in self.volumes:
            return 201, dict(self.volumes[name], unchanged=True)
        self.volumes[name] = {
            "name": name, "uuid": str(uuid.uuid4()), "pool": body.get("pool", "default"),
            "size_bytes": body["size_bytes"], "allocated_bytes": 4096, "replicas": body.get("replicas", 1),
            "state": "detached", "why": "", "read_only": False, "attachments": [],
            "disks": [{"uuid": "u1", "name": "d1", "allocated_bytes": 4096}], "generation": 1, "epoch": 1,
            "created_at": "2025-01-31T12:34:56Z", "counters": None}
        with open(os.path.join(self.folder, name + ".data"), "wb") as f:
            f.truncate(body["size_bytes"])
        return 201, self.volumes[name]

    def volume_get(self, name):
        if self.mode() == "unmade":
            raise Refusal(404, "not-found", f"there is no volume '{name}'; see 'quarry volume list'")
        return 200, dict(self.volume(name), **({"attachments": []} if self.mode() == "unattached" else {}))

    def volume_patch(self, name, body):
        volume = self.volume(name)
        if "name" in body:
            if body["name"] in self.volumes:
                raise Refusal(409, "exists", f"volume '{body['name']}' exists")
            self.volumes[body["name"]] = self.volumes.pop(name)
            os.rename(os.path.join(self.folder, name + ".data"), os.path.join(self.folder, body["name"] + ".data"))
        if "size_bytes" in body and body["size_bytes"] < volume["size_bytes"] and not body.get("force"):
            raise Refusal(409, "in-use", f"volume '{name}' has data behind {body['size_bytes']} bytes; --force loses it")
        volume.update({k: v for k, v in body.items() if k != "force"})
        return 200, volume

    def volume_delete(self, name):
        if self.volume(name)["attachments"]:
            raise Refusal(409, "in-use", f"volume '{name}' is attached; detach it first")
        del self.volumes[name]
        os.unlink(os.path.join(self.folder, name + ".data"))
        return 200, {}

    def attach(self, name, body):
        volume = self.volume(name)
        socket = os.path.join(self.folder, name + ".nbd")
        command = ["nbdkit", "-f", "--exit-with-parent", "-U", socket, "-P", socket + ".pid", "-e", name]
        if body.get("read_only"):
            command.append("-r")
        if self.mode() == "bad-nbd":
            command.append("--filter=error")
        if volume["attachments"]:
            return 201, dict(volume["attachments"][0], unchanged=True)
        if self.mode() == "lossy-nbd":
            command += ["null", str(volume["size_bytes"])]
        else:
            command += ["file", os.path.join(self.folder, name + ".data")]
        if self.mode() == "bad-nbd":
            command += ["error-pwrite=EIO", "error-pwrite-rate=100%"]
        self.servers[name] = self.starter.submit(subprocess.Popen, command).result()
        while not os.path.exists(socket + ".pid"):
            if self.servers[name].poll() is not None:
                raise Refusal(500, "internal", "nbdkit ended")
        volume["attachments"] = [{"frontend": "nbd", "uri": f"nbd+unix:///{name}?socket={socket}",
                                  "uris": [f"nbd+unix:///{name}?socket={socket}", f"nbd://0.0.0.0:10809/{name}"],
                                  "read_only": bool(body.get("read_only"))}]
        volume["state"], volume["counters"] = "serving", COUNTERS
        return 201, volume["attachments"][0]

    def detach(self, name):
        volume = self.volume(name)
        if volume["attachments"]:
            server = self.servers.pop(name)
            server.kill()  # asked to end it would wait for clients that stand still
            server.wait()
            os.unlink(os.path.join(self.folder, name + ".nbd.pid"))
            os.unlink(os.path.join(self.folder, name + ".nbd"))
        volume["attachments"], volume["state"], volume["counters"] = [], "detached", None
        return 200, {}

    # ---- snapshots ----

    def path(self, name):
        return os.path.join(self.folder, name)

    def live_bring_up(self, name):
        """Writes into NAME.live.qcow2, whose bitmaps note it, what has changed in the volume."""
        live, data = self.path(name + ".live.qcow2"), self.path(name + ".data")
        size = os.path.getsize(data)
        if not os.path.exists(live):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", live, str(size)], check=True)
            open(data + ".before", "wb").close()
        subprocess.run(["qemu-img", "resize", "-q", live, str(size)], check=True)
        os.truncate(data + ".before", size)
        server, step = nbd.NBD(), 1 << 20
        server.connect_systemd_socket_activation(["qemu-nbd", "--discard=unmap", "--format=qcow2", live])
        with open(data, "rb", 0) as now, open(data + ".before", "r+b", 0) as before:
            for at in range(0, size, step):
                if at + step <= min(next_data(now, at, size), next_data(before, at, size)):
                    continue  # holes in both
                now.seek(at)
                before.seek(at)
                new, old = now.read(step), before.read(step)
                for i in range(0, len(new), 4096) if new != old else ():
                    block = new[i:i + 4096]
                    if block == old[i:i + 4096]:
                        continue
                    before.seek(at + i)
                    before.write(block)
                    if block.strip(b"\0"):
                        server.pwrite(block, at + i)
                    else:
                        server.zero(len(block), at + i)
        server.flush()
        server.shutdown()

    def snapshot_create(self, name, body):
        volume, snapshot = self.volume(name), body["name"]
        earlier = self.snapshots.setdefault(name, [])
        self.live_bring_up(name)
        live = self.path(name + ".live.qcow2")
        subprocess.run(["cp", live, self.path(f"{name}@{snapshot}.qcow2")], check=True)
        subprocess.run(["qemu-img", "bitmap", "--add", "-g", "4096", live, snapshot], check=True)
        self.n_snapshots += 1
        created = body.get("created_at") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        earlier.append({"name": snapshot, "volume": name, "id": self.n_snapshots, "created_at": created,
                        "size_bytes": volume["size_bytes"], "attachments": [],
                        "bitmaps": [s["name"] for s in earlier]})
        return 201, earlier[-1]

    def snapshot(self, title):
        name, _, snapshot = title.partition("@")
        for s in self.snapshots.get(name, []):
            if s["name"] == snapshot:
                return s
        raise Refusal(404, "not-found", f"there is no snapshot '{title}'; see 'quarry snapshot list'")

    def snapshot_delete(self, name, snapshot):
        found = self.snapshot(f"{name}@{snapshot}")
        self.snapshots[name].remove(found)
        os.unlink(self.path(f"{name}@{snapshot}.qcow2"))
        subprocess.run(["qemu-img", "bitmap", "--remove", self.path(name + ".live.qcow2"), snapshot], check=True)
        for other in self.snapshots[name]:
            if snapshot in other["bitmaps"]:
                other["bitmaps"].remove(snapshot)
        return 200, {}

    def snapshot_attach(self, title, body):
        if os.path.exists(self.path("retaken")):  # names a snapshot that is deleted now and taken anew
            with open(self.path("retaken"), encoding="utf-8") as f:
                self.n_snapshots += 1
                self.snapshot(f.read().strip())["id"] = self.n_snapshots
            os.unlink(self.path("retaken"))
        snapshot, socket = self.snapshot(title), self.path(title + ".nbd")
        command = ["setpriv", "--pdeathsig", "TERM", "qemu-nbd", "--read-only", "--format=qcow2", "--persistent",
                   "--shared=16", "-k", socket, "-x", title, "--pid-file", socket + ".pid"]
        if not os.path.exists(self.path("no-changes")):
            command += [f"--bitmap={s}" for s in snapshot["bitmaps"]]
        if not snapshot["attachments"]:
            self.servers[title] = self.starter.submit(subprocess.Popen, command + [self.path(title + ".qcow2")]).result()
            while not os.path.exists(socket + ".pid"):
                if self.servers[title].poll() is not None:
                    raise Refusal(500, "internal", "qemu-nbd ended")
                time.sleep(0.01)  # poll: until the socket is there
            uri = f"nbd+unix:///{title}?socket={socket}"
            snapshot["attachments"] = [{"frontend": "nbd", "uri": uri, "uris": [uri], "read_only": True,
                                        "temporary": bool(body.get("temporary"))}]
        return 201, snapshot["attachments"][0]

    def snapshot_detach(self, title, query):
        if query == "temporary=true" and not any(a["temporary"] for a in self.snapshot(title)["attachments"]):
            return 200, {"unchanged": True}
        if self.snapshot(title)["attachments"]:
            server = self.servers.pop(title)
            server.terminate()
            server.wait()
            for suffix in (".nbd.pid", ".nbd"):
                if os.path.exists(self.path(title + suffix)):
                    os.unlink(self.path(title + suffix))
        self.snapshot(title)["attachments"] = []
        return 200, {}

    # ---- disks and the rest ----

    def disk(self, name):
        for disk in self.disks.values():
            if name in (disk["name"], disk["uuid"]):
                return disk
        raise Refusal(404, "not-found", f"there is no disk '{name}'; see 'quarry disk list'")

    def disk_add(self, body):
        name = os.path.basename(body["path"])
        self.disks[name] = {
            "name": name, "uuid": "5b0d6e2c-5a0a-4a56-8a6e-333333333333", "node": "n1", "path": body["path"],
            "pool": body.get("pool", "default"), "state": "running", "why": "", "reserved": body.get("reserve", False),
            "size_bytes": body.get("size_bytes", 1 << 30), "used_bytes": 1 << 20, "free_bytes": None,
            "waiting_bytes": 0, "counters": COUNTERS,
            "scrub": {"running": False, "done_bytes": 0, "total_bytes": 0, "bad_blocks": 0, "healed_blocks": 0,
                      "healing": False, "straightened_leaves": 0, "started_at": None, "ended_at": None}}
        return 201, self.disks[name]

    def disk_write(self, body):
        """A disk that is written through: a quarter of it, until somebody has looked."""
        self.adding = [{"path": body["path"], "pool": "default", "reserved": True, "size_bytes": body["size_bytes"],
                        "written_bytes": body["size_bytes"] // 4}]
        self.is_looked_at.wait(30)
        self.adding = []

    def adding_look(self):
        if self.adding:
            self.is_looked_at.set()
        return self.adding

    def disk_get(self, name):
        disk = self.disk(name)
        if disk["scrub"]["healing"]:
            disk["scrub"].update(healing=False, healed_blocks=1)
        if disk["scrub"]["running"]:
            disk["scrub"]["done_bytes"] += 512 << 20
            if disk["scrub"]["done_bytes"] >= disk["scrub"]["total_bytes"]:
                disk["scrub"].update(running=False, ended_at="2025-01-31T13:00:00Z",
                                     bad_blocks=3 if "bad" in name else 0, healing="bad" in name)
        return 200, disk

    def disk_scrub(self, name):
        self.disk(name)["scrub"].update(running=True, done_bytes=0, total_bytes=1 << 30, ended_at=None,
                                        bad_blocks=0, healed_blocks=0, healing=False,
                                        started_at="2025-01-31T12:59:00Z")
        return 202, self.disk(name)

    def disk_remove(self, name, query):
        disk = self.disk(name)
        if "force=true" not in query:
            raise Refusal(409, "in-use", f"disk '{name}' holds data of 1 volume; --force loses it")
        del self.disks[disk["name"]]
        return 200, {}

    def status(self):
        problems = []
        if self.mode() == "unhealthy":
            problems = [{"code": "disk-failed", "object": "disk d1", "message": "a write failed; replace it"}]
        return 200, {"healthy": not problems, "node": "n1", "version": "0.1.0", "started_at": "2025-01-31T12:34:56Z",
                     "uptime_s": 3700, "problems": problems, "pools": 1, "disks": len(self.disks),
                     "volumes": len(self.volumes), "attached_volumes": len(self.servers)}

    def events(self, query):
        after = int((re.search(r"after=(\d+)", query) or [0, "0"])[1])
        return 200, {"events": [e for e in EVENTS if e["sequence"] > after], "started_at": "2025-01-31T12:34:56Z"}

    def top(self):
        self.top_asked += 1
        counters = dict(COUNTERS, reads=1000 * self.top_asked)
        return 200, {"monotonic_ns": 10**9 * self.top_asked, "volumes": [{"name": "v1", "counters": counters}],
                     "disks": [{"name": "d1", "counters": counters}]}

    def usage(self):
        return 200, {"pools": list(self.pools.values()), "disks": list(self.disks.values()),
                     "volumes": list(self.volumes.values())}

    def pool(self, name):
        if name not in self.pools:
            raise Refusal(404, "not-found", f"there is no pool '{name}'; see 'quarry pool list'")
        return self.pools[name]

    def pool_change(self, name, body):
        if body.get("replicas", 1) > 3:
            raise Refusal(400, "invalid", "a volume has at most 3 copies")
        self.pool(name).update(body)
        return 200, self.pool(name)

    def pool_create(self, body):
        self.pools.setdefault(body["name"], dict(POOL, **body))
        return 201, self.pools[body["name"]]

    def pool_delete(self, name):
        self.pool(name)
        del self.pools[name]
        return 200, {}

    def answer(self, method, path, query, body):
        by_name = lambda values: [values[k] for k in sorted(values)]
        routes = [
            ("GET /v1/status", lambda: self.status()),
            ("GET /v1/nodes", lambda: (200, {"nodes": [NODE]})),
            ("GET /v1/nodes/n1", lambda: (200, NODE)),
            ("GET /v1/events", lambda: self.events(query)),
            ("GET /v1/top", lambda: self.top()),
            ("GET /v1/usage", lambda: self.usage()),
            ("GET /v1/pools", lambda: (200, {"pools": by_name(self.pools)})),
            ("POST /v1/pools", lambda: self.pool_create(body)),
            ("GET /v1/pools/(.*)", lambda name: (200, self.pool(name))),
            ("PATCH /v1/pools/(.*)", lambda name: self.pool_change(name, body)),
            ("DELETE /v1/pools/(.*)", lambda name: self.pool_delete(name)),
            ("GET /v1/disks", lambda: (200, {"disks": by_name(self.disks), "adding": self.adding_look()})),
            ("POST /v1/disks", lambda: self.disk_add(body)),
            ("POST /v1/disks/(.*)/scrub", lambda name: self.disk_scrub(name)),
            ("GET /v1/disks/(.*)", lambda name: self.disk_get(name)),
            ("DELETE /v1/disks/(.*)", lambda name: self.disk_remove(name, query)),
            ("GET /v1/volumes", lambda: (200, {"volumes": by_name(self.volumes)})),
            ("POST /v1/volumes", lambda: self.volume_create(body)),
            ("GET /v1/volumes/(.*)/snapshots", lambda name: (200, {"snapshots": self.volume(name) and
                                                                   self.snapshots.get(name, [])})),
            ("POST /v1/volumes/(.*)/snapshots", lambda name: self.snapshot_create(name, body)),
            ("DELETE /v1/volumes/(.*)/snapshots/(.*)", lambda name, snapshot: self.snapshot_delete(name, snapshot)),
            ("POST /v1/volumes/([^/]*%40[^/]*)/attachments", lambda name: self.snapshot_attach(name.replace("%40", "@"), body)),
            ("DELETE /v1/volumes/([^/]*%40[^/]*)/attachments/nbd",
             lambda name: self.snapshot_detach(name.replace("%40", "@"), query)),
            ("POST /v1/volumes/(.*)/attachments", lambda name: self.attach(name, body)),
            ("DELETE /v1/volumes/(.*)/attachments", lambda name: self.detach(name)),
            ("DELETE /v1/volumes/(.*)/attachments/nbd", lambda name: self.detach(name)),
            ("DELETE /v1/volumes/(.*)/attachments/vhost-user", lambda name: (200, {"unchanged": True})),
            ("GET /v1/volumes/(.*)", lambda name: self.volume_get(name)),
            ("PATCH /v1/volumes/(.*)", lambda name: self.volume_patch(name, body)),
            ("DELETE /v1/volumes/(.*)", lambda name: self.volume_delete(name)),
        ]
        for route, handler in routes:
            match = re.fullmatch(route.replace("(.*)", "([^/]*)"), f"{method} {path}")
            if match:
                return handler(*match.groups())
        raise Refusal(404, "not-found", f"there is no resource {method} {path}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "client"

    def log_message(self, *arguments):
        pass

    def reply(self, status, text, kind="application/json"):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def spoil(self, mode):
        """True when the mode has taken care of the answer."""
        if mode == "close":
            self.close_connection = True
        elif mode == "html":
            self.reply(200, "<html>hello</html>", "text/html")
        elif mode == "array":
            self.reply(200, "[1, 2]")
        elif mode == "empty":
            self.reply(503, "")
        elif mode == "refuse":
            self.reply(503, json.dumps({"error": {"code": "busy", "message": "stopping\nnow \u001b[2J"}}))
        else:
            return False
        return True

    def serve(self):
        state, token = self.server.state, self.server.token
        path, _, query = self.path.partition("?")
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with open(os.path.join(state.folder, "requests"), "a", encoding="utf-8") as f:
            f.write(f"{self.command} {self.path} {text}\n")
        if self.spoil(state.mode()):
            return
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            self.reply(401, json.dumps({"error": {"code": "unauthorized", "message": "no"}}))
            return
        if state.mode() == "writing" and f"{self.command} {path}" == "POST /v1/disks":
            state.disk_write(json.loads(text))
        try:
            with state.lock:
                status, value = state.answer(self.command, path, query, json.loads(text) if text else {})
        except Refusal as refusal:
            status, value = refusal.status, {"error": {"code": refusal.code, "message": str(refusal)}}
        self.reply(status, json.dumps(value))

    do_GET = do_POST = do_PATCH = do_DELETE = serve


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    token = None


class TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


def main():
    state = State(sys.argv[2])
    if len(sys.argv) > 3:
        tcp = TcpServer(("127.0.0.1", 0), Handler)
        tcp.state, tcp.token = state, sys.argv[5]
        threading.Thread(target=tcp.serve_forever, daemon=True).start()
        with open(sys.argv[4] + ".new", "w", encoding="utf-8") as f:
            f.write(str(tcp.server_address[1]))
        os.rename(sys.argv[4] + ".new", sys.argv[4])
    server = UnixServer(sys.argv[1], Handler)
    server.state = state
    server.serve_forever()


main()
