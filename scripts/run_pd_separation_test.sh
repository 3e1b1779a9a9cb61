#!/bin/sh -e
# One prefill engine (port 8100), one decode engine (8200) and the proxy (10001) with every turn split: runs a five-turn
# conversation, then serves until INT or TERM. Flags: see scripts/cluster.py --help, for example --once or
# --engine simulated. Logs: logs/{prefill,decode,proxy}_*.log, the latest run only.
exec "$(dirname "$0")/run_ppd_test.sh" pd "$@"
