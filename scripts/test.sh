#!/bin/sh -e
# Lint, types and tests. Makes .venv first where there is none, and adds what is missing there.
#
#   scripts/test.sh           everything that needs no vLLM, and a short run on real vLLM where its environment exists
#   scripts/test.sh --vllm    every test on real vLLM too
#   scripts/test.sh --wheels  the patches and the connector's API against published vLLM wheels, too: downloads 35 of
#                             them the first time, one after the other, and keeps the few files it reads in .wheels
#   scripts/test.sh --compiled  the pure core's, the proxy's and some of the whole proxy's tests once more on modules
#                             compiled by scripts/compile.py, which are taken away again: three minutes, and a C compiler
#
# The vLLM environment is made by scripts/setup_vllm_cpu.sh: .venv-vllm, or PPD_VLLM_VENV=DIR.
cd "$(dirname "$0")/.."
vllm=vllm_smoke
wheels="and not wheels"
compiled=
for flag in "$@"; do
  case "$flag" in
    --vllm) vllm=vllm ;;
    --wheels) wheels= ;;
    --compiled) compiled=1 ;;
    *) echo "usage: scripts/test.sh [--vllm] [--wheels] [--compiled]" >&2; exit 2 ;;
  esac
done
PPD_VLLM_VENV=${PPD_VLLM_VENV:-$PWD/.venv-vllm}
export PPD_VLLM_VENV

. scripts/venv.sh
need dev -c requirements-ci.txt
.venv/bin/python -m ruff check .
.venv/bin/python -m mypy
.venv/bin/python -m pytest -q -m "not vllm and not vllm_smoke $wheels"
if [ -n "$compiled" ]; then
  trap '.venv/bin/python scripts/compile.py --clean' EXIT
  .venv/bin/python scripts/compile.py --level 0
  .venv/bin/python -m pytest -q tests/unit/core tests/unit/proxy tests/unit/wire tests/flow/test_wire.py \
    tests/flow/test_sampled.py
fi
if [ -e "$PPD_VLLM_VENV/.ready" ]; then
  .venv/bin/python -m pytest -q -m "$vllm"
elif [ "$vllm" = vllm ]; then
  echo "$PPD_VLLM_VENV is not ready: run scripts/setup_vllm_cpu.sh" >&2
  exit 1
else
  echo "$PPD_VLLM_VENV is not ready: no test ran on real vLLM"
fi
