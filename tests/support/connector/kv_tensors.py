"""KV tensors in memory, and KV dumps of them, for the tests of check-kv."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ppd_accuracy.kv import elements
from ppd_accuracy.kv.elements import ElementType
from ppd_accuracy.kv.figures import of_tensor
from ppd_accuracy.kv.findings import CacheFinding
from ppd_accuracy.kv.patterns import find_patterns
from ppd_accuracy.kv.rows import compare_rows
from ppd_accuracy.kv.tolerance import Tolerance, differing_rows, judge
from ppd_connector.elements import from_float32, to_float32

TORCH_NAMES = {
    "fp16": "float16", "bf16": "bfloat16", "fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2", "fp32": "float32",
}  # fmt: skip


@dataclass(frozen=True)
class ArrayTensor:
    """Raw integers of shape (heads, tokens, channels)."""

    raw: NDArray[Any]
    element: ElementType

    @property
    def shape(self) -> tuple[int, int, int]:
        heads, tokens, channels = self.raw.shape
        return heads, tokens, channels

    def read(self, start: int, stop: int) -> NDArray[Any]:
        part: NDArray[Any] = self.raw.reshape(-1)[start:stop]
        return part


def tensor(values: NDArray[Any], name: str = "fp32") -> ArrayTensor:
    """The values rounded to that element type."""
    element = elements.element_type(name)
    if name == "fp64":
        return ArrayTensor(np.ascontiguousarray(values, np.float64).view(np.uint64), element)
    raw = from_float32(np.ascontiguousarray(values, np.float32), TORCH_NAMES[name])
    return ArrayTensor(raw, element)


def patterns_of(baseline: ArrayTensor, target: ArrayTensor, *, block_size: int = 16) -> tuple[CacheFinding, ...]:
    """What is found in a target that does not pass."""
    rows = compare_rows(baseline, target)
    verdict = judge(rows, of_tensor(rows), baseline, target, declared=None, limits=Tolerance())
    assert not verdict.is_pass
    beyond = differing_rows(rows, verdict.element, baseline, target)
    return find_patterns(
        rows, beyond, baseline, target, block_size=block_size, element=verdict.element, rounding=verdict.rounding
    )


def rounded(values: NDArray[Any], name: str) -> NDArray[np.float32]:
    """fp32 values that went through that element type."""
    torch_name = TORCH_NAMES[name]
    return to_float32(from_float32(np.asarray(values, np.float32), torch_name), torch_name).astype(np.float32)


def gaussian(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def layers_of(count: int, shape: tuple[int, int, int] = (2, 64, 16), *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Keys and values of that many layers as a connector dumps them: bf16 as raw uint16."""
    generator = np.random.default_rng(seed)
    return {
        f"layer_{layer}_{kind}": from_float32(generator.standard_normal(shape).astype(np.float32), "bfloat16")
        for layer in range(count)
        for kind in ("key", "value")
    }


def metadata(**fields: Any) -> dict[str, Any]:
    return {"dtype": "bfloat16", "block_size": 16, "request_id": "r", "side": "prefill", "rank": 0, **fields}


def write_npz(
    path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any] | None = None, *, compressed: bool = False
) -> Path:
    extra = {} if about is None else {"metadata": np.array(json.dumps(about))}
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=False, **extra, **arrays)
    return path


def write_safetensors(
    path: Path, arrays: Mapping[str, tuple[str, NDArray[Any]]], about: Mapping[str, str] | None = None
) -> Path:
    """Name -> (dtype as the format spells it, the raw array), by the format's own writer."""
    tensors = {
        name: np.ascontiguousarray(array).view(elements.element_type(dtype).dtype)
        for name, (dtype, array) in arrays.items()
    }
    save_file(tensors, path, None if about is None else dict(about))
    return path
