#!/bin/bash
# limit: 600
# vhost-restart-slow.sh [ROUNDS]: vhost-restart.sh over a disk whose I/O takes 20 ms: requests are in flight for long, and
# complete out of order. Default: 6 rounds.
DELAY_MS=20 exec "$(dirname "$0")/vhost-restart.sh" "${1:-6}"
