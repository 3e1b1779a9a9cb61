import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 200

sys.path.insert(0, str(ROOT / "benchmarks"))

from cluster import Cluster, ClusterSpec, split_engines  # noqa: E402


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """One prefill and two decode engines that answer at once, and the proxy."""
    engines = split_engines(prefill=1, decode=2, kind="simulated")
    with Cluster(ClusterSpec(engines=engines, logs=tmp_path_factory.mktemp("logs"))) as started:
        yield started


@pytest.fixture(scope="session")
def run_script():
    """Runs one of the repository's scripts to its end."""

    def run(script, *arguments, env=None):
        return subprocess.run(
            [sys.executable, ROOT / script, *map(str, arguments)],
            capture_output=True, text=True, timeout=LIMIT_S, check=False, env={**os.environ, **(env or {})},
        )  # fmt: skip

    return run
