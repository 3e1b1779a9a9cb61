#!/bin/sh -e
# scripts/run_ppd_test.sh pd|ppd [flags of scripts/cluster.py]
#
# One prefill engine (port 8100), one decode engine (8200) and the proxy (10001) in mode pd (every turn split) or ppd
# (later turns go straight to the decode engine): runs a five-turn conversation, then serves until INT or TERM, or with
# --once stops. Real vLLM on CPU unless --engine simulated: the first run takes about 2 minutes, and before it
# scripts/setup_vllm_cpu.sh about 6. Logs: logs/{prefill,decode,proxy}_*.log.
cd "$(dirname "$0")/.."
mode=${1:-ppd}
case "$mode" in
  pd | ppd) ;;
  *) echo "usage: scripts/run_ppd_test.sh pd|ppd [flags of scripts/cluster.py]" >&2; exit 2 ;;
esac
[ $# -eq 0 ] || shift
. scripts/venv.sh
need ""
exec .venv/bin/python scripts/cluster.py --mode "$mode" "$@"
