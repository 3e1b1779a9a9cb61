# What the scripts share, to be sourced in the repository's root: .venv with what the calling script needs.
#
# need EXTRA [FLAGS]: makes .venv where there is none, and installs ppd-proxy with that extra of pyproject.toml ("": none)
# where something of it is missing or came from somewhere else; where nothing is, that takes a tenth of a second. FLAGS
# are pip's. A script that has to stop an installation sets `step` to what runs a command so.
step=${step:-}

need() {
  extra=$1
  shift
  # A first run that was stopped may have left half a .venv.
  if ! .venv/bin/python -c 'import pip' 2> /dev/null; then
    python=${PYTHON:-python3}
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "Python 3.11 or newer is needed, $python is not; name another with PYTHON=" >&2
      exit 1
    fi
    $step "$python" -m venv .venv
  fi
  missing=$(.venv/bin/python scripts/missing.py "$extra")
  [ -n "$missing" ] || return 0
  echo "installing into .venv, a minute or two: $missing"
  $step .venv/bin/python -m pip --disable-pip-version-check install -q "$@" -e ".${extra:+[$extra]}"
}
