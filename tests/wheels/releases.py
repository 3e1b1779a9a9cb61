"""Which patch belongs to which release, and the modules of a release with or without its patch.

The modules are the release's own `p2p_nccl_connector.py` and `p2p_nccl_engine.py`. Their surroundings are stubs:
torch is numpy (`stubs.py`), every other module of vLLM that they import is a stub, `regex` is `re`. pyzmq and msgpack
are real, and so are the sockets and the threads.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.wheels import stubs, wheels

PATCHES = Path(__file__).resolve().parents[2] / "connector_patches" / "patches"
P2P = wheels.CONNECTORS + "v1/p2p/"
ENGINE = P2P + "p2p_nccl_engine.py"
CONNECTOR = P2P + "p2p_nccl_connector.py"

RANGES: dict[str, tuple[str, ...]] = {
    "p2p_nccl_0.9.2.patch": ("0.9.2",),
    "p2p_nccl_0.10.0-0.10.1.patch": ("0.10.0", "0.10.1", "0.10.1.1"),
    "p2p_nccl_0.10.2-0.11.0.patch": ("0.10.2", "0.11.0"),
    "p2p_nccl_0.11.1-0.23.patch": (
        "0.11.1", "0.11.2", "0.12.0", "0.13.0", "0.14.0", "0.14.1", "0.15.0", "0.15.1", "0.16.0", "0.17.0", "0.17.1",
        "0.18.0", "0.18.1", "0.19.0", "0.19.1", "0.20.0", "0.20.1", "0.20.2", "0.21.0", "0.22.0", "0.22.1", "0.23.0",
    ),
}  # fmt: skip
VERSIONS = tuple(version for versions in RANGES.values() for version in versions)


@dataclass(frozen=True)
class Release:
    """The two modules of one release, patched or as published."""

    version: str
    engine: ModuleType
    connector: ModuleType
    source: str

    @property
    def reports_failed_blocks(self) -> bool:
        """Whether vLLM asks the connector for blocks that did not arrive."""
        return "get_block_ids_with_load_errors" in wheels.wheel_file(self.version, wheels.CONNECTORS + "v1/base.py")

    @property
    def blocks_first(self) -> bool:
        """Whether the first dimension of a layer's cache counts the blocks; else the second one does."""
        return "extract_kv_from_layer" not in self.source

    @property
    def cache_per_virtual_engine(self) -> bool:
        """Whether a layer holds a list of caches."""
        return "forward_context.virtual_engine" in self.source


def patch_of(version: str) -> Path:
    """The patch file whose range contains the release."""
    return next(PATCHES / name for name, versions in RANGES.items() if version in versions)


def stock_tree(version: str, directory: Path) -> Path:
    """A copy of the release's p2p folder under `directory`, with its path as in site-packages."""
    shutil.copytree(wheels.wheel_directory(version) / P2P, directory / P2P)
    return directory


def run_patch(patch: Path, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """GNU patch as the README has it, without fuzz and without questions."""
    command = ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--batch", *options]
    command += ["-d", str(directory), "-i", str(patch)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def load(version: str, patched: bool = True) -> Release:
    """Import the release's modules under the stubs."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = stock_tree(version, Path(scratch))
        if patched:
            finished = run_patch(patch_of(version), tree)
            assert finished.returncode == 0, finished.stdout
        replaced = {name: sys.modules.get(name) for name in (*stubs.modules(), _name(ENGINE), _name(CONNECTOR))}
        sys.modules.update(stubs.modules())
        try:
            engine = _import(tree, ENGINE)
            connector = _import(tree, CONNECTOR)
            vars(engine).update(threading=stubs.Threading, time=stubs.Time)
        finally:
            for name, module in replaced.items():
                if module is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = module
        return Release(version, engine, connector, (tree / CONNECTOR).read_text() + (tree / ENGINE).read_text())


def _name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def _import(tree: Path, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_name(path), tree / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
