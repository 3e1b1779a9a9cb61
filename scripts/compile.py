#!/usr/bin/env python3
"""Compile the request's path with mypyc, beside its sources: Python then takes the compiled modules instead of them.

    scripts/compile.py             compile; takes two minutes, a C compiler and mypy (pip install ppd-proxy[compile])
    scripts/compile.py --level 0   in half a minute, and not as fast
    scripts/compile.py --clean     take away what was compiled

Works on the ppd-proxy that this interpreter imports, be it installed or a checkout. Nothing but speed changes: without
it, or with another Python, the sources run as they are. ppd-proxy refuses to start where a compiled module is not that
of its source, and says at its start how many modules run compiled. Exit status 1 where it cannot be compiled.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from ppd_proxy.runtime import compiled

MODULES: Final = (
    "ppd_core.conversation.conversations",
    "ppd_core.conversation.homes",
    "ppd_core.conversation.identity",
    "ppd_core.conversation.step_index",
    "ppd_core.conversation.stepped",
    "ppd_core.conversation.tree",
    "ppd_core.fleet.echoes",
    "ppd_core.fleet.load",
    "ppd_core.handoff.nixl",
    "ppd_core.handoff.p2p_nccl",
    "ppd_core.policy.candidates",
    "ppd_core.policy.decide",
    "ppd_core.policy.filters",
    "ppd_core.policy.placement",
    "ppd_core.policy.retry_budget",
    "ppd_proxy.control",
    "ppd_proxy.keys",
    "ppd_proxy.request.answering",
    "ppd_proxy.request.deadlines",
    "ppd_proxy.request.director",
    "ppd_proxy.request.driver",
    "ppd_proxy.request.exchange",
    "ppd_proxy.request.in_flight",
    "ppd_proxy.request.legs",
    "ppd_proxy.request.ongoing",
    "ppd_proxy.request.planner",
    "ppd_proxy.request.prompt_watch",
    "ppd_proxy.request.reader",
    "ppd_proxy.request.remember",
    "ppd_proxy.request.serving",
    "ppd_proxy.server.answer_heads",
    "ppd_proxy.server.bodies",
    "ppd_proxy.server.data_path",
    "ppd_proxy.server.flow",
    "ppd_proxy.server.guarding",
    "ppd_proxy.server.protocol",
    "ppd_proxy.server.reply",
    "ppd_proxy.telemetry.cells",
    "ppd_proxy.telemetry.logs",
    "ppd_proxy.telemetry.metrics",
    "ppd_proxy.telemetry.observer",
    "ppd_proxy.upstream.connection",
    "ppd_proxy.upstream.known_head",
    "ppd_proxy.upstream.leg",
    "ppd_proxy.upstream.pool",
    "ppd_wire.answers.removal",
    "ppd_wire.dialects.relay",
    "ppd_wire.dialects.sse",
    "ppd_wire.headers",
    "ppd_wire.requests.bodies",
    "ppd_wire.requests.prompt_size",
)
"""What a request spends its time in. Not what defines a `msgspec.Struct`: mypyc drops its options (frozen, gc)."""
PACKAGES: Final = ("ppd_wire", "ppd_accuracy", "ppd_core", "ppd_shell", "ppd_sim", "ppd_proxy", "ppd_connector")
"""What mypy has to see, to know types."""
_BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
modules = mypycify(sys.argv[2:], opt_level=sys.argv[1], group_name="ppd_proxy.fast")
setup(name="ppd", packages=[], ext_modules=modules, script_args=["build_ext", "--inplace"])
"""


def compile_modules(root: Path, level: str) -> int:
    """Put the compiled modules into `root`, the folder that has the packages; how many there are. `level` is the
    compiler's. Raises CalledProcessError with the compiler's words."""
    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder)
        for package in PACKAGES:
            sources = root / package if (root / package).is_dir() else root.parent / "connector_patches" / package
            shutil.copytree(sources, build / package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        files = [f"{name.replace('.', '/')}.py" for name in MODULES]
        subprocess.run(
            [sys.executable, "-c", _BUILD, level, *files],
            cwd=build,
            env={**os.environ, "MYPYPATH": folder},
            check=True,
            capture_output=True,
            text=True,
        )
        shutil.rmtree(build / "build")
        built = [path.relative_to(build) for path in build.rglob("*.so")]
        for path in built:
            shutil.copy2(build / path, root / path)
    compiled.write_manifest(root, MODULES, [str(path) for path in built])
    return len(MODULES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", choices=("0", "1", "2", "3"), default="3", help="how much is optimised (default 3)")
    parser.add_argument("--clean", action="store_true", help="take away what was compiled")
    args = parser.parse_args()
    root = compiled.root()
    compiled.clean(root)
    if args.clean:
        return 0
    print(f"compiling {len(MODULES)} modules", flush=True)
    try:
        print(f"{compile_modules(root, args.level)} modules run compiled from now on")
    except subprocess.CalledProcessError as failed:
        print(failed.stdout + failed.stderr, file=sys.stderr)
        print("could not compile; the sources run as they are", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
