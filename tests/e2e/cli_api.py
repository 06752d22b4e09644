#!/usr/bin/python3
"""Holds docs/openapi.yaml against a daemon: cli_api.py OPENAPI SOCKET DISK-FILE

Every operation is called at least once. An answer must have a status that is described for it and match its schema, and may
not hold a key that is not described. Every body is sent with an unknown key and with each value of a wrong type, too, and
must be refused with the key's name in the message.
"""

import http.client
import json
import re
import socket
import sys

import yaml


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Contract:
    """The description, and what was found to differ from it."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.spec = yaml.safe_load(f)
        self.called, self.wrong, self.n_checks = set(), [], 0
        self.operations = [o for p in self.spec["paths"].values() for m, o in p.items() if m != "parameters"]

    def resolve(self, schema):
        while "$ref" in schema:
            node = self.spec
            for part in schema["$ref"][2:].split("/"):
                node = node[part]
            schema = node
        return schema

    def complain(self, where, what):
        self.wrong.append(f"{where}: {what}")

    def check(self, where, schema, value):
        self.n_checks += 1
        schema = self.resolve(schema)
        if value is None:
            if not schema.get("nullable"):
                self.complain(where, "is null")
            return
        for part in schema.get("allOf", []):
            self.check(where, part, value)
        kind = schema.get("type")
        kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}
        if kind and (not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool))):
            self.complain(where, f"is {value!r}, not of type {kind}")
        elif kind == "object":
            self.check_object(where, schema, value)
        elif kind == "array":
            for i, item in enumerate(value):
                self.check(f"{where}[{i}]", schema["items"], item)
        elif kind == "string":
            self.check_text(where, schema, value)
        elif kind == "integer" and not schema.get("minimum", 0) <= value:
            self.complain(where, f"is {value}")

    def check_object(self, where, schema, value):
        for key in schema.get("required", []):
            if key not in value:
                self.complain(where, f"lacks the key {key}")
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key in known:
                self.check(f"{where}.{key}", known[key], item)
            elif isinstance(others, dict):
                self.check(f"{where}.{key}", others, item)
            else:
                self.complain(where, f"has the key {key}, which is not described")

    def check_text(self, where, schema, value):
        if "enum" in schema and value not in schema["enum"]:
            self.complain(where, f"is '{value}', not one of {schema['enum']}")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            self.complain(where, f"is '{value}', against {schema['pattern']}")
        if schema.get("format") == "uuid" and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
            self.complain(where, f"is '{value}', not a UUID")
        moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
        if schema.get("format") == "date-time" and not re.fullmatch(moment, value):
            self.complain(where, f"is '{value}', not a moment in UTC")

    def find(self, method, path):
        """The operation that a request means."""
        for pattern, methods in self.spec["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path) and method.lower() in methods:
                return methods[method.lower()]
        raise SystemExit(f"{method} {path} is not in the description")


# A node by itself refuses these, and cluster-drain.sh has others.
NEEDS_OTHERS = ("drainNode", "cancelNodeDrain")


class Api:
    def __init__(self, contract, socket_path):
        self.contract, self.socket_path = contract, socket_path

    def raw(self, method, path, body=None):
        connection = UnixConnection(self.socket_path)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, answer.headers.get("Content-Type", ""), text

    def call(self, wanted, method, path, body=None, code=None):
        """One request, whose status must be `wanted`; the answer."""
        contract = self.contract
        operation = contract.find(method, path.partition("?")[0])
        status, kind, text = self.raw(method, path, body)
        where = f"{method} {path} -> {status}"
        if status < 300 or (status == 400 and operation["operationId"] in NEEDS_OTHERS):
            contract.called.add(operation["operationId"])
        if status != wanted:
            contract.complain(where, f"expected {wanted}: {text[:200]}")
            return {}
        described = operation["responses"].get(str(status))
        if described is None:
            contract.complain(where, "this status is not described")
            return {}
        content = contract.resolve(described)["content"]
        if kind.partition(";")[0] not in content:
            contract.complain(where, f"has the type {kind}")
            return {}
        if "application/json" not in content:
            return text.decode()
        value = json.loads(text)
        # described once, for the answers of all commands
        if method != "GET" and value.pop("unchanged", True) is not True:
            contract.complain(where, "has a key unchanged that is not true")
        contract.check(where, content["application/json"]["schema"], value)
        if code and value.get("error", {}).get("code") != code:
            contract.complain(where, f"expected the code {code}: {value}")
        return value

    def refusals(self, method, path, good):
        """Bodies that are wrong in one key, each refused by its name."""
        operation = self.contract.find(method, path)
        schema = self.contract.resolve(operation["requestBody"]["content"]["application/json"]["schema"])
        bodies = [("colour", dict(good, colour="blue"))]
        bodies += [(key, dict(good, **{key: {"a": 1}})) for key in schema["properties"]]
        bodies += [(key, {k: v for k, v in good.items() if k != key}) for key in schema.get("required", [])]
        for key, body in bodies:
            value = self.call(400, method, path, body, "invalid")
            if key not in value.get("error", {}).get("message", ""):
                self.contract.complain(f"{method} {path} {body}", f"the message does not name {key}: {value}")


def walk(api, disk_file):
    """A short life of a pool, a disk and volumes, with every operation in it."""
    disk = api.call(201, "POST", "/v1/disks", {"path": disk_file, "size_bytes": 256 << 20})
    api.refusals("POST", "/v1/disks", {"path": disk_file + "x", "size_bytes": 256 << 20})
    api.call(404, "POST", "/v1/disks", {"path": disk_file + "x", "size_bytes": 256 << 20, "pool": "none"}, "not-found")
    api.call(201, "POST", "/v1/pools", {"name": "p1", "failure_domain": "disk"})
    api.call(201, "POST", "/v1/pools", {"name": "p1", "failure_domain": "disk"})
    api.refusals("POST", "/v1/pools", {"name": "p2"})
    api.refusals("PATCH", "/v1/pools/p1", {"replicas": 1})
    api.call(400, "PATCH", "/v1/pools/p1", {}, "invalid")
    api.call(200, "PATCH", "/v1/pools/p1", {"failure_domain": "node"})
    api.call(200, "GET", "/v1/pools/p1")
    api.call(404, "GET", "/v1/pools/none", code="not-found")

    create = {"name": "v1", "size_bytes": 64 << 20}
    first = api.call(201, "POST", "/v1/volumes", create)
    again = api.call(201, "POST", "/v1/volumes", create)
    if first.get("uuid") != again.get("uuid"):
        api.contract.complain("POST /v1/volumes", "a second create gave another volume")
    api.call(409, "POST", "/v1/volumes", dict(create, size_bytes=65 << 20), "exists")
    api.call(404, "POST", "/v1/volumes", dict(create, name="v2", pool="none"), "not-found")
    api.call(507, "POST", "/v1/volumes", dict(create, name="v2", replicas=5), "no-space")
    api.refusals("POST", "/v1/volumes", dict(create, name="v2"))
    for size in (0, -512, 1000, 2**53, 4503599627370496 + 512):
        api.call(400, "POST", "/v1/volumes", {"name": "v2", "size_bytes": size}, "invalid")
    for name in ("", ".a", "a/b", "a b", "x" * 64, "v@s"):
        api.call(400, "POST", "/v1/volumes", {"name": name, "size_bytes": 1 << 20}, "invalid")
    api.call(200, "PATCH", "/v1/volumes/v1", {"size_bytes": 128 << 20})
    api.call(400, "PATCH", "/v1/volumes/v1", {"size_bytes": 1 << 20, "name": "v3"}, "invalid")
    api.call(400, "PATCH", "/v1/volumes/v1", {"force": True}, "invalid")
    api.call(400, "PATCH", "/v1/volumes/v1", {}, "invalid")
    api.refusals("PATCH", "/v1/volumes/v1", {"size_bytes": 128 << 20})
    api.call(200, "PATCH", "/v1/volumes/v1", {"name": "v3"})
    api.call(404, "GET", "/v1/volumes/v1", code="not-found")
    api.call(200, "PATCH", "/v1/volumes/v3", {"name": "v1"})

    api.refusals("POST", "/v1/volumes/v1/attachments", {"frontend": "nbd"})
    attachment = api.call(201, "POST", "/v1/volumes/v1/attachments", {"frontend": "nbd"})
    if api.call(201, "POST", "/v1/volumes/v1/attachments", {"frontend": "nbd"}) != attachment:
        api.contract.complain("POST attachments", "a second attach gave another attachment")
    volume = api.call(200, "GET", "/v1/volumes/v1")
    if volume.get("attachments") != [attachment] or volume.get("state") != "serving":
        api.contract.complain("GET /v1/volumes/v1", f"is not attached: {volume}")
    api.call(409, "DELETE", "/v1/volumes/v1", code="in-use")
    here = api.call(200, "GET", "/v1/version").get("node", "")
    api.refusals("POST", "/v1/volumes/v1/move", {"node": here})
    if api.call(200, "POST", "/v1/volumes/v1/move", {"node": here}).get("node") != here:
        api.contract.complain("POST move", "it is not where it was")
    api.call(404, "POST", "/v1/volumes/v1/move", {"node": "none"}, code="not-found")
    if not api.call(202, "POST", f"/v1/disks/{disk.get('uuid')}/drain").get("drain", {}).get("done") in (True, False):
        api.contract.complain("POST drain", "it is not being drained")
    if api.call(200, "DELETE", f"/v1/disks/{disk.get('uuid')}/drain").get("drain", 0) is not None:
        api.contract.complain("DELETE drain", "it is still being drained")
    api.call(404, "POST", "/v1/disks/none/drain", code="not-found")
    api.call(202, "POST", f"/v1/disks/{disk.get('uuid')}/scrub")
    api.call(200, "GET", f"/v1/disks/{disk.get('name')}")
    history(api)
    for path in ("version", "status", "nodes", "pools", "disks", "volumes", "events", "usage", "top", "requests"):
        api.call(200, "GET", f"/v1/{path}")
    own = "/v1/nodes/" + api.call(200, "GET", "/v1/version").get("node", "")
    api.call(200, "GET", own)
    api.call(404, "GET", "/v1/nodes/none", code="not-found")
    api.call(400, "POST", own + "/drain")
    api.call(400, "DELETE", own + "/drain")
    api.call(404, "POST", "/v1/nodes/none/drain", code="not-found")
    api.call(200, "GET", "/v1/events?after=1&limit=1&wait=0")
    api.call(400, "GET", "/v1/events?after=x", code="invalid")
    api.call(400, "GET", "/v1/events?wait=61", code="invalid")
    api.call(200, "GET", "/v1/requests?older_than_ms=0")
    if "quarry_" not in api.call(200, "GET", "/metrics"):
        api.contract.complain("GET /metrics", "has no metric")

    api.call(200, "DELETE", "/v1/volumes/v1/attachments/nbd")
    api.call(200, "DELETE", "/v1/volumes/v1/attachments")
    api.call(400, "POST", "/v1/volumes/v1/move", {"node": here}, code="invalid")
    api.call(404, "DELETE", "/v1/volumes/none/attachments", code="not-found")
    api.call(200, "DELETE", "/v1/volumes/v1")
    api.call(409, "DELETE", "/v1/pools/default", code="in-use")
    api.call(200, "DELETE", "/v1/pools/p1")
    api.call(200, "DELETE", f"/v1/disks/{disk.get('uuid')}?force=true")
    api.call(200, "DELETE", f"/v1/disks/{disk.get('uuid')}?force=true")
    api.call(200, "DELETE", "/v1/pools/p1")
    api.call(200, "DELETE", "/v1/volumes/v1")
    for path in ("disks/none", "pools/none", "volumes/none"):
        api.call(404, "DELETE", f"/v1/{path}", code="not-found")


def history(api):
    """Snapshots, clones, changes and schedules of the volume v1, which is attached and stays so."""
    api.refusals("POST", "/v1/volumes/v1/snapshots", {"name": "s1"})
    api.call(201, "POST", "/v1/volumes/v1/snapshots", {"name": "s1"})
    first = api.call(201, "POST", "/v1/volumes/v1/snapshots", {"name": "s1"})
    api.call(404, "POST", "/v1/volumes/none/snapshots", {"name": "s1"}, "not-found")
    api.refusals("POST", "/v1/snapshots", {"snapshots": ["v1@s2"]})
    for names in ([], ["v1"], ["v1@"], ["@s"], [1], ["v1@s2"] * 17):
        api.call(400, "POST", "/v1/snapshots", {"snapshots": names}, "invalid")
    taken = api.call(201, "POST", "/v1/snapshots", {"snapshots": ["v1@s2"]})
    if [s["name"] for s in taken.get("snapshots", [])] != ["s2"]:
        api.contract.complain("POST /v1/snapshots", f"answers with {taken}")
    if len(api.call(200, "GET", "/v1/snapshots").get("snapshots", [])) != 2:
        api.contract.complain("GET /v1/snapshots", "does not list both")
    if api.call(200, "GET", "/v1/volumes/v1/snapshots").get("snapshots", [{}])[0].get("epoch") != first.get("epoch"):
        api.contract.complain("GET snapshots", "the second create took another snapshot")
    api.call(404, "GET", "/v1/volumes/none/snapshots", code="not-found")
    one = api.call(200, "GET", "/v1/volumes/v1/snapshots/s1")
    if one.get("unique_bytes") is None:
        api.contract.complain("GET snapshot", f"is not measured: {one}")
    api.call(404, "GET", "/v1/volumes/v1/snapshots/none", code="not-found")
    api.call(404, "GET", "/v1/volumes/v1@s1", code="not-found")
    if api.call(200, "GET", "/v1/volumes/v1?measure=true").get("unique_bytes") is None:
        api.contract.complain("GET volume", "is not measured")
    api.call(200, "GET", "/v1/volumes/v1/changes?since=s1&until=s2&limit=10&from=4096")
    api.call(200, "GET", "/v1/volumes/v1/changes?since=v1%40s1")
    api.call(400, "GET", "/v1/volumes/v1/changes", code="invalid")
    api.call(400, "GET", "/v1/volumes/v1/changes?since=s1&from=5", code="invalid")
    api.call(404, "GET", "/v1/volumes/v1/changes?since=none", code="not-found")
    api.call(201, "POST", "/v1/volumes/v1@s1/attachments", {"frontend": "nbd"})
    api.call(409, "DELETE", "/v1/volumes/v1/snapshots/s1", code="in-use")
    api.call(200, "DELETE", "/v1/volumes/v1@s1/attachments")
    api.call(409, "POST", "/v1/volumes/v1/snapshots/s1/rollback", code="in-use")
    api.refusals("POST", "/v1/volumes/v1/snapshots/s1/clone", {"name": "c1"})
    api.call(201, "POST", "/v1/volumes/v1/snapshots/s1/clone", {"name": "c1"})
    api.call(201, "POST", "/v1/volumes/v1/snapshots/s1/clone", {"name": "c1"})
    api.call(409, "POST", "/v1/volumes/v1/snapshots/s2/clone", {"name": "c1"}, "exists")
    api.call(201, "POST", "/v1/volumes/c1/snapshots", {"name": "s"})
    api.call(200, "POST", "/v1/volumes/c1/snapshots/s/rollback")
    api.call(409, "DELETE", "/v1/volumes/c1", code="in-use")
    api.call(200, "DELETE", "/v1/volumes/c1?snapshots=true")
    api.refusals("PUT", "/v1/volumes/v1/schedule", {"every_s": 3600, "keep": 2})
    api.call(200, "PUT", "/v1/volumes/v1/schedule", {"every_s": 3600, "keep": 2})
    api.call(200, "GET", "/v1/status")
    api.call(200, "DELETE", "/v1/volumes/v1/schedule")
    for snapshot in api.call(200, "GET", "/v1/volumes/v1/snapshots").get("snapshots", []):
        api.call(200, "DELETE", f"/v1/volumes/v1/snapshots/{snapshot['name']}")
    api.call(200, "DELETE", "/v1/volumes/v1/snapshots/s1")
    api.call(404, "DELETE", "/v1/volumes/v1/snapshots/none", code="not-found")


def main():
    contract = Contract(sys.argv[1])
    walk(Api(contract, sys.argv[2]), sys.argv[3])
    for operation in contract.operations:
        if operation["operationId"] not in contract.called:
            contract.complain(operation["operationId"], "was never answered well")
    for line in contract.wrong:
        print(line)
    if contract.wrong or contract.n_checks < 500:
        sys.exit(1)
    print(f"{len(contract.called)} operations, {contract.n_checks} values")


main()
