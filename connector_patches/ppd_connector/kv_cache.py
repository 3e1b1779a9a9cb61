"""vLLM's paged KV cache of one rank as a `store.DeviceStore`: CPU tensors directly, GPU tensors through pinned memory,
or (`read_device`, `write_device`) without leaving the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ppd_connector import pages
from ppd_connector.geometry import Geometry, LayerShape, fingerprint
from ppd_connector.store import Payload


@dataclass(frozen=True, slots=True)
class CudaPayload:
    """One layer's KV on a GPU, bytes in one dimension. `ready` is when it holds what it should, None for at once."""

    tensor: torch.Tensor
    ready: torch.cuda.Event | None = None

    @property
    def nbytes(self) -> int:
        return int(self.tensor.nbytes)


class KvCache:
    """Built once the caches exist. `specs` gives each layer's `KVCacheSpec`; `model` goes into the fingerprint."""

    def __init__(
        self,
        caches: Mapping[str, torch.Tensor],
        specs: Mapping[str, Any],
        *,
        block_tokens: int,
        cpu_isa: Callable[[torch.Tensor, Any], str] | None,
        model: Mapping[str, Any],
        rank: int,
        ranks: int,
    ) -> None:
        self.block_tokens = block_tokens
        names, seen = [], set()
        for name, cache in caches.items():
            if cache.data_ptr() not in seen:  # layers that share one cache are moved once
                seen.add(cache.data_ptr())
                names.append(name)
        self._pages = [
            pages.pages_of(name, caches[name], specs[name], cpu_isa(caches[name], specs[name]) if cpu_isa else None)
            for name in names
        ]
        for name, page in zip(names, self._pages, strict=True):
            _check(name, page, specs[name], block_tokens)
        self.layer_of = {name: index for index, name in enumerate(names)}
        shapes: list[LayerShape] = [each.shape for each in self._pages]
        self.geometry = Geometry(
            names=tuple(names),
            layers=tuple(shapes),
            fingerprint=fingerprint(model, names, shapes, rank=rank, ranks=ranks),
        )
        self.device = next(iter(caches.values())).device
        self._is_cuda = self.device.type == "cuda"
        self._out = torch.cuda.Stream(self.device) if self._is_cuda else None
        self._in = torch.cuda.Stream(self.device) if self._is_cuda else None

    def read(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> Callable[[], memoryview]:
        page = self._pages[layer]
        slots = self._slots(page, blocks, first_token, end_token)
        if not self._is_cuda:
            payload = memoryview(self._dense(page, slots).numpy())
            return lambda: payload
        current = torch.cuda.current_stream(self.device)
        try:
            dense = self._dense(page, slots)
            host = torch.empty(dense.shape, dtype=torch.uint8, pin_memory=True)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(f"no GPU memory for a copy of KV: {error}") from error
        assert self._out is not None
        self._out.wait_stream(current)
        with torch.cuda.stream(self._out):
            host.copy_(dense, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        dense.record_stream(self._out)

        def wait() -> memoryview:
            copied.synchronize()
            return memoryview(host.numpy())

        return wait

    def write(
        self, layer: int, blocks: Sequence[int], first_token: int, end_token: int, payload: memoryview, *, at_token: int
    ) -> None:
        page = self._pages[layer]
        shape = page.shape
        tokens = len(payload) // shape.bytes_per_token
        raw = _pinned(payload) if self._is_cuda else torch.frombuffer(payload, dtype=torch.uint8)
        # On a GPU everything, the slots' own arithmetic included, runs on one stream: nothing is reused too early.
        with nullcontext() if self._in is None else torch.cuda.stream(self._in):
            slots = self._slots(page, blocks, first_token, end_token)
            raw = raw.to(self.device, non_blocking=True)
            page.write(slots, _planes(raw, shape, tokens, first_token - at_token, end_token - at_token))

    def read_device(self, layer: int, blocks: Sequence[int], first_token: int, end_token: int) -> Payload:
        page = self._pages[layer]
        try:
            dense = self._dense(page, self._slots(page, blocks, first_token, end_token))
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(f"no GPU memory for a copy of KV: {error}") from error
        ready = torch.cuda.Event()
        ready.record(torch.cuda.current_stream(self.device))
        return CudaPayload(dense, ready)

    def write_device(
        self, layer: int, blocks: Sequence[int], first_token: int, end_token: int, payload: Payload, *, at_token: int
    ) -> None:
        assert isinstance(payload, CudaPayload)
        page = self._pages[layer]
        tokens = payload.nbytes // page.shape.bytes_per_token
        with torch.cuda.stream(self._in):
            slots = self._slots(page, blocks, first_token, end_token)
            planes = _planes(payload.tensor, page.shape, tokens, first_token - at_token, end_token - at_token)
            page.write(slots, planes)

    def to_host(self, payload: Payload) -> memoryview:
        assert isinstance(payload, CudaPayload)
        assert self._out is not None
        host = torch.empty(payload.nbytes, dtype=torch.uint8, pin_memory=True)
        with torch.cuda.stream(self._out):
            if payload.ready is not None:
                self._out.wait_event(payload.ready)
            host.copy_(payload.tensor, non_blocking=True)
        self._out.synchronize()
        return memoryview(host.numpy())

    def flush(self) -> None:
        if self._in is not None:
            self._in.synchronize()

    def _dense(self, page: pages.Pages, slots: pages.Slots) -> torch.Tensor:
        """These tokens as a payload."""
        shape, count = page.shape, slots.count
        dense = torch.empty(count * shape.bytes_per_token, dtype=torch.uint8, device=self.device)
        page.read(slots, _planes(dense, shape, count, 0, count))
        return dense

    def _slots(self, page: pages.Pages, blocks: Sequence[int], first_token: int, end_token: int) -> pages.Slots:
        return pages.slots_of(
            blocks,
            first_token,
            end_token,
            block_tokens=self.block_tokens,
            page_tokens=page.page_tokens,
            device=self.device,
        )


def _check(name: str, page: pages.Pages, spec: Any, block_tokens: int) -> None:
    """A cache whose axes were taken for one another would be read without an error: refuse what does not add up."""
    heads = spec.num_kv_heads
    if page.shape.heads != heads or block_tokens % page.page_tokens:
        raise ValueError(
            f"layer {name}: a cache of {page.shape.heads} heads and {page.page_tokens} tokens per page does not fit"
            f" {heads} KV heads and blocks of {block_tokens}: its layout is not known to PPDConnector"
        )


def _pinned(payload: memoryview) -> torch.Tensor:
    """A copy in pinned memory, by one thread: `pin_memory()` wakes a team of OpenMP threads that then spin, which took
    ten CPU seconds per GB and made the whole transfer half as fast (benchmarks/kv_gpu.py on 16 cores)."""
    host = torch.empty(len(payload), dtype=torch.uint8, pin_memory=True)
    np.copyto(host.numpy(), np.frombuffer(payload, np.uint8))
    return host


def _planes(raw: torch.Tensor, shape: LayerShape, tokens: int, start: int, end: int) -> list[torch.Tensor]:
    """Views [heads, end - start, channels] of a payload of `tokens` tokens."""
    values, offset, planes = raw.view(getattr(torch, shape.dtype)), 0, []
    for channels in shape.channels:
        size = shape.heads * tokens * channels
        planes.append(values[offset : offset + size].view(shape.heads, tokens, channels)[:, start:end])
        offset += size
    return planes
