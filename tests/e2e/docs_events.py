#!/usr/bin/python3
"""docs_events.py TOP: docs/reference/events.md names the code of every event in the source, with its level, and no other;
docs/reference/cli.md the code of every problem that `quarry status` may tell, and no other.

Prints what is wrong, a line each, or how many codes there are; exit status 1 when anything is wrong.
"""
import pathlib
import re
import sys

FLOORS = ("daemon", "volumes", "frontends", "replication")
# what passes a code on to log_event(): its callers name it, and its own call tells the level
PASSED_ON = {"guest_tell": "info"}


def told(top):
    """Code: levels, as the source tells them."""
    found = {}
    for floor in FLOORS:
        for path in sorted((top / floor).rglob("*.c")):
            text = path.read_text()
            for call in re.findall(r'\blog_event\(([^;"]*)"([a-z-]+)"', text):
                found.setdefault(call[1], set()).update(level.lower() for level in re.findall(r"LOG_([A-Z]+)", call[0]))
            for name, level in PASSED_ON.items():
                for code in re.findall(name + r'\([^;"]*"([a-z-]+)"', text):
                    found.setdefault(code, set()).add(level)
    return found


def documented(top):
    found = {}
    for line in (top / "docs/reference/events.md").read_text().splitlines():
        row = re.match(r"\| (`[^|]*`) \| ([a-z, ]+) \|", line)
        if row:
            for code in re.findall(r"`([a-z-]+)`", row[1]):
                found[code] = set(row[2].split(", "))
    return found


def problems_told(top):
    return set(re.findall(r'\btell\([^;"]*"([a-z-]+)"', (top / "daemon/control/health.c").read_text()))


def problems_documented(top):
    table = (top / "docs/reference/cli.md").read_text().split("| problem | |")[1].split("\n\n")[0]
    return {code for row in re.findall(r"(?m)^\| (`[^|]*`) \|", table) for code in re.findall(r"`([a-z-]+)`", row)}


top = pathlib.Path(sys.argv[1])
source, page = told(top), documented(top)
wrong = ["docs/reference/events.md lacks %s (%s)" % (c, ", ".join(sorted(source[c]))) for c in sorted(source.keys() - page.keys())]
wrong += ["docs/reference/events.md names %s, which nothing tells" % c for c in sorted(page.keys() - source.keys())]
wrong += ["docs/reference/events.md: %s is told as %s" % (c, ", ".join(sorted(source[c])))
          for c in sorted(source.keys() & page.keys()) if not source[c] <= page[c]]
wrong += ["docs/reference/cli.md lacks the problem %s, or nothing tells it" % c
          for c in sorted(problems_told(top) ^ problems_documented(top))]
print("\n".join(wrong) if wrong else "%d events" % len(source))
sys.exit(1 if wrong else 0)
