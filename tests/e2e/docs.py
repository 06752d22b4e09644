#!/usr/bin/python3
"""docs.py PAGE [FROM=TO ...]: turns a page of the documentation into a script that runs every block of commands in it.

A block of ```sh is run, in order, in one shell, with -e. Comments before a block say what is not as usual:

  <!-- not run: WHY -->     it is left out
  <!-- fails -->            it must fail
  <!-- given               (several lines) commands that the page takes for done; run in this place
  ... -->

FROM=TO replaces text in the commands, so that /run/quarry is a folder of the test's. `sudo` is left out. Prints the script;
exit status 1 when the page has no block to run.
"""
import re
import sys

page, replacements = sys.argv[1], dict(a.split("=", 1) for a in sys.argv[2:])
with open(page, encoding="utf-8") as f:
    text = f.read()

pattern = re.compile(r"<!-- given\n(?P<given>.*?)-->|<!-- (?P<how>not run|fails)[^>]*-->\s*\n(?=```sh\n)|^```sh\n(?P<block>.*?)^```",
                     re.S | re.M)
how, n, out = None, 0, ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
for m in pattern.finditer(text):
    if m["how"]:
        how = m["how"]
        continue
    commands = m["given"] or m["block"]
    # all at once: what replaces one may hold another
    commands = re.sub("|".join(map(re.escape, replacements)) or "(?!)", lambda m: replacements[m[0]], commands)
    commands = re.sub(r"\bsudo ", "", commands)
    place = "%s:%d" % (page.split("/")[-1], text.count("\n", 0, m.start()) + 1)
    if how == "not run":
        pass
    elif how == "fails":
        out += ["echo '-- %s: must fail'" % place, "set +e", "( set -e", commands.rstrip(), ")", "failed_as_told=$?", "set -e",
                "[ $failed_as_told != 0 ] || { echo '%s did not fail'; exit 1; }" % place]
        n += 1
    else:
        out += ["echo '-- %s'" % place, commands.rstrip()]
        n += m["block"] is not None
    how = None
print("\n".join(out))
sys.exit(0 if n else 1)
