"""Releases, request ids and messages that the tests of the patches share."""

from __future__ import annotations

import pytest
from tests.wheels.releases import RANGES, VERSIONS
from tests.wheels.side import LONG_S, Side

every_release = pytest.mark.parametrize("version", VERSIONS)
reporting = pytest.mark.parametrize("version", RANGES["p2p_nccl_0.11.1-0.23.patch"])
raising = pytest.mark.parametrize("version", [v for v in VERSIONS if v not in RANGES["p2p_nccl_0.11.1-0.23.patch"]])
fetching = pytest.mark.parametrize("version", VERSIONS[VERSIONS.index("0.11.0") :])
"""GET does not work in earlier releases."""
stock = pytest.mark.parametrize("version", ["0.9.2", "0.10.1", "0.11.0", "0.13.0", "0.23.0"])

KEY = "0123456789abcdef" * 2
PROMPT = 10
P_BLOCKS = [5, 1, 6]
D_BLOCKS = [2, 7, 3]
UNTAGGED = ["cmpl-3f0c-0", "chatcmpl-plain", "0_cmpl-3f0c", "", "a#b"]
MALFORMED = [
    f"cmpl-___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_{KEY[:31]}-0",
    f"cmpl-___decode_addr_10.0.0.2:22001_{KEY}-0",
    f"cmpl-___prefill_addr_10.0.0.1___decode_addr_10.0.0.2_{KEY}-0",
]


def tag(prefill: str = "10.0.0.1:21001", decode: str = "10.0.0.2:22001", key: str = KEY) -> str:
    return f"___prefill_addr_{prefill}___decode_addr_{decode}_{key}"


def as_prefill(request_tag: str) -> str:
    return f"cmpl-{request_tag}-0-1a2b3c4d"


def as_decode(request_tag: str) -> str:
    return f"chatcmpl-{request_tag}_held1024-5e6f7081"


def put(tensor_id: str, shape=(2,), dtype: str = "float32") -> dict:
    return {"cmd": "PUT", "tensor_id": tensor_id, "shape": list(shape), "dtype": dtype}


def received(side: Side, tensor_id: str) -> bool:
    """Whether the listener stored an outcome for the tensor, a failure included."""
    with side.engine.recv_store_cv:
        return side.engine.recv_store_cv.wait_for(lambda: tensor_id in side.engine.recv_store, LONG_S)
