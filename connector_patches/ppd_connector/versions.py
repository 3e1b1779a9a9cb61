"""Which vLLM releases the connector may run in. Standard library only.

`RUN` were run against a real engine, `READ` were checked against the connector API of their wheel
(tests/wheels/test_connector_api.py); connector_patches/README.md has the table.
"""

from __future__ import annotations

import re

CONNECTOR_VERSION = "1.0"
"""Announced to the proxy. What two engines must agree on is `messages.PROTOCOL` and the fingerprint."""

RUN = ((0, 30), (0, 31), (0, 32))
READ = ((0, 24), (0, 25), (0, 26), (0, 27), (0, 28), (0, 29))


def check_vllm_version(version: str) -> None:
    """Raise RuntimeError, saying what to do, unless the connector knows this vLLM release (`0.32.0`, `0.30.1rc1`)."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise RuntimeError(
            f"PPDConnector cannot tell which release vLLM {version!r} is; it runs in 0.24 to 0.32. Install a release"
        )
    release = int(match[1]), int(match[2])
    if release in RUN or release in READ:
        return
    if release < min(READ):
        raise RuntimeError(
            f"PPDConnector runs in vLLM 0.24 to 0.32, this is {version}. Up to 0.23 use vLLM's own P2pNcclConnector"
            " with the patch of connector_patches/patches, or update vLLM"
        )
    raise RuntimeError(
        f"PPDConnector runs in vLLM 0.24 to 0.32, this is {version}, whose connector API it was never checked against."
        " Use vLLM 0.32, or NixlConnector, or a newer ppd-proxy"
    )
