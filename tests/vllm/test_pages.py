"""The KV cache layouts that the connector reads and writes, checked where torch and vLLM are."""

import subprocess
from pathlib import Path

import pytest

from cluster import vllm_environment, vllm_python
from processes import ClusterError


@pytest.mark.vllm_smoke
def test_every_cache_layout_is_read_and_written_token_by_token() -> None:
    try:
        python = vllm_python()
    except ClusterError as error:
        pytest.skip(str(error))
    script = Path(__file__).with_name("pages_check.py")
    done = subprocess.run([python, script], env=vllm_environment(0), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "22"
