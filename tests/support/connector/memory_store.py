"""A small paged KV cache of numpy arrays: `ppd_connector.store.Store` without a GPU, slow and easy to check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppd_connector.elements import RAW_TYPES
from ppd_connector.geometry import Geometry, LayerShape, fingerprint

Planes = list[NDArray[Any]]
"""One layer's KV of some tokens: for each plane [heads, tokens, channels] of raw integers."""

SHAPES = (LayerShape(2, (4, 4), "bfloat16"), LayerShape(1, (6,), "uint8"), LayerShape(3, (2, 5), "float32"))
"""Layers that differ in everything a layer can differ in."""


class MemoryStore:
    """Every layer has one array [blocks, heads, tokens, channels] per plane; untouched slots hold noise of `seed`."""

    def __init__(
        self,
        *,
        blocks: int = 64,
        block_tokens: int = 4,
        shapes: Sequence[LayerShape] = SHAPES,
        model: str = "tiny",
        seed: int = 1,
    ) -> None:
        generator = np.random.default_rng(seed)
        self._block_tokens = block_tokens
        names = tuple(f"layer.{index}" for index in range(len(shapes)))
        digest = fingerprint({"model": model}, names, shapes, rank=0, ranks=1)
        self._geometry = Geometry(names=names, layers=tuple(shapes), fingerprint=digest)
        self.cache = [
            [noise(generator, (blocks, shape.heads, block_tokens, width), shape.dtype) for width in shape.channels]
            for shape in shapes
        ]
        self.flushes = 0

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @property
    def block_tokens(self) -> int:
        return self._block_tokens

    def read(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> Callable[[], memoryview]:
        planes = self.tokens(layer, blocks, first_token, end_token)
        payload = b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes)
        return lambda: memoryview(payload)

    def write(
        self, layer: int, blocks: Sequence[int], first_token: int, end_token: int, payload: memoryview, *, at_token: int
    ) -> None:
        shape = self._geometry.layers[layer]
        assert at_token <= first_token < end_token
        assert len(payload) % shape.bytes_per_token == 0
        count = len(payload) // shape.bytes_per_token
        assert end_token <= at_token + count
        flat = np.frombuffer(payload, RAW_TYPES[shape.dtype])
        sizes = [shape.heads * count * channels for channels in shape.channels]
        pieces = np.split(flat, np.cumsum(sizes)[:-1])
        planes = [
            piece.reshape(shape.heads, count, channels)[:, first_token - at_token : end_token - at_token]
            for piece, channels in zip(pieces, shape.channels, strict=True)
        ]
        self.fill(layer, blocks, first_token, planes)

    def flush(self) -> None:
        self.flushes += 1

    # For tests: one token at a time

    def fill(self, layer: int, blocks: Sequence[int], first_token: int, planes: Planes) -> None:
        """Put tokens from `first_token` on into their slots."""
        for plane, values in zip(self.cache[layer], planes, strict=True):
            for index in range(values.shape[1]):
                block, offset = divmod(first_token + index, self._block_tokens)
                plane[blocks[block], :, offset] = values[:, index]

    def tokens(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> Planes:
        """What is in these tokens' slots."""
        slots = [divmod(token, self._block_tokens) for token in range(first_token, end_token)]
        return [
            np.stack([plane[blocks[block], :, offset] for block, offset in slots], axis=1)
            for plane in self.cache[layer]
        ]

    def copy(self) -> list[Planes]:
        """The whole cache as it is now."""
        return [[plane.copy() for plane in planes] for planes in self.cache]


def noise(generator: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Random raw elements of this type."""
    raw = RAW_TYPES[dtype]
    return generator.integers(0, np.iinfo(raw).max, size=shape, dtype=raw, endpoint=True)


def some_kv(tokens: int, *, shapes: Sequence[LayerShape] = SHAPES, seed: int = 7) -> list[Planes]:
    """KV of a prompt: for every layer its planes."""
    generator = np.random.default_rng(seed)
    return [[noise(generator, (shape.heads, tokens, channels), shape.dtype) for channels in shape.channels]
            for shape in shapes]  # fmt: skip
