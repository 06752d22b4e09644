#!/bin/bash
# limit: 60
# cli-api.sh: the daemon's control API is what docs/openapi.yaml says, and both programs are of one release.
. "$(dirname "$0")/lib.sh"
require jq
/usr/bin/python3 -c 'import yaml' 2>/dev/null || skip "python3-yaml is not installed (packaging/debian-packages.txt)"
daemon_begin

say "every operation, every key"
expect 0 '^[0-9]+ operations, [0-9]+ values$' "$here/cli_api.py" "$top/docs/openapi.yaml" "$dir/control.sock" "$dir/disks/d1.img"

say "one release"
is "the daemon's version" "$("$quarryd" --version | grep -oE '[0-9]+(\.[0-9]+)+')" "$(q --version | grep -oE '[0-9]+(\.[0-9]+)+')"
is "the API's version" "quarry $(curl -s --unix-socket "$dir/control.sock" http://localhost/v1/version | jq -r .version)" "$(q --version)"

passed
