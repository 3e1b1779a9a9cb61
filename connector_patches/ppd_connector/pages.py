"""How attention backends lay KV out in a block, and tensors of it in the layout that travels.

One `Pages` per layer. Every backend's cache becomes planes [pages, heads, groups, tokens per group, channels] (views,
never copies), K and V or the one latent of MLA:

- vLLM 0.30 to 0.32, accelerators: [blocks, heads, tokens, K channels and V channels] (`kv_cache_interface.py`).
- vLLM 0.24 to 0.29: [blocks, 2, tokens, heads, channels] (FlashAttention, Triton, FlashInfer), or [2, blocks, ...];
  MLA [blocks, tokens, channels].
- CPU, all releases: [blocks, heads, ...] whose block holds all of K, then all of V (`cpu_attn.py`). Both are
  packed for the instruction set: K mostly as groups of tokens that are transposed, V mostly not at all, but for AMX in
  pairs of tokens. How, is found out by having vLLM's own kernel write a block of known values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ppd_connector.geometry import LayerShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Where tokens are: for each its page and its offset in it. `whole` are the pages they lie in, in order, of which
    the first `skip` tokens are left out."""

    pages: torch.Tensor
    offsets: torch.Tensor
    whole: torch.Tensor
    skip: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """One layer. A page is the scheduler's block, or a whole fraction of it (kernel blocks)."""

    planes: tuple[torch.Tensor, ...]
    orders: tuple[torch.Tensor | None, ...] = ()
    """CPU only, for planes that are packed in another way than transposed groups: the element in the block for
    [token, channel]. None, or fewer than planes: packed in no such way."""

    @property
    def page_tokens(self) -> int:
        return int(self.planes[-1].shape[2] * self.planes[-1].shape[3])

    @property
    def shape(self) -> LayerShape:
        last = self.planes[-1]
        channels = tuple(int(plane.shape[4]) for plane in self.planes)
        return LayerShape(int(last.shape[1]), channels, str(last.dtype).removeprefix("torch."))

    def read(self, slots: Slots, into: Sequence[torch.Tensor]) -> None:
        """Copy these tokens out; `into` are planes [heads, tokens, channels] on the cache's device."""
        for plane, values, order in self._with_orders(into):
            if order is not None:
                flat = plane.reshape(plane.shape[0], plane.shape[1], -1)
                values.copy_(flat[slots.pages[:, None], :, order[slots.offsets]].permute(2, 0, 1))
            else:
                _gather(plane, slots, values)

    def write(self, slots: Slots, planes: Sequence[torch.Tensor]) -> None:
        """The reverse."""
        for plane, values, order in self._with_orders(planes):
            if order is not None:
                flat = plane.view(plane.shape[0], plane.shape[1], -1)
                flat[slots.pages[:, None], :, order[slots.offsets]] = values.permute(1, 2, 0)
            else:
                group = plane.shape[3]
                plane[slots.pages, :, slots.offsets // group, slots.offsets % group] = values.transpose(0, 1)

    def _with_orders(
        self, values: Sequence[torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        orders = (*self.orders, *[None] * (len(self.planes) - len(self.orders)))
        return zip(self.planes, values, orders, strict=True)


def _gather(plane: torch.Tensor, slots: Slots, values: torch.Tensor) -> None:
    """Whole pages in one piece, in the cache's own order; then each token once, to where it belongs."""
    is_transposed = plane.stride(3) < plane.stride(4)
    picked = (plane.transpose(3, 4) if is_transposed else plane).index_select(0, slots.whole)
    tokens = (picked.transpose(3, 4) if is_transposed else picked).transpose(0, 1)
    _, pages, groups, group, _ = tokens.shape
    per_page, end = groups * group, slots.skip + slots.count
    first, last = -(-slots.skip // per_page), end // per_page
    if first > last:  # both ends in one page
        values.copy_(tokens.flatten(1, 3)[:, slots.skip : end])
        return
    before = first * per_page - slots.skip
    whole = before + (last - first) * per_page
    if before:
        values[:, :before] = tokens[:, 0].flatten(1, 2)[:, slots.skip :]
    if first < last:
        values[:, before:whole].unflatten(1, (last - first, groups, group)).copy_(tokens[:, first:last])
    if last < pages:
        values[:, whole:] = tokens[:, last].flatten(1, 2)[:, : slots.count - whole]


def slots_of(
    blocks: Sequence[int],
    first_token: int,
    end_token: int,
    *,
    block_tokens: int,
    page_tokens: int,
    device: torch.device,
) -> Slots:
    """The slots of a request's tokens; `blocks` are the scheduler's, of `block_tokens`, which may be several pages."""
    per_block = block_tokens // page_tokens
    first_page, end_page = first_token // page_tokens, -(-end_token // page_tokens)
    numbers = [blocks[page // per_block] * per_block + page % per_block for page in range(first_page, end_page)]
    pages = torch.tensor(numbers, device=device)
    tokens = torch.arange(first_token, end_token, device=device)
    return Slots(
        pages=pages[tokens // page_tokens - first_page],
        offsets=tokens % page_tokens,
        whole=pages,
        skip=first_token - first_page * page_tokens,
        count=end_token - first_token,
    )


def pages_of(name: str, cache: torch.Tensor, spec: Any, cpu_isa: str | None) -> Pages:
    """Read one layer's cache tensor; `spec` is its `KVCacheSpec`. ValueError for a cache that is no attention KV."""
    heads, size = getattr(spec, "num_kv_heads", None), getattr(spec, "head_size", None)
    size_v = getattr(spec, "head_size_v", None) or size
    if not isinstance(cache, torch.Tensor) or heads is None or size is None:
        raise ValueError(f"layer {name} has a {type(spec).__name__}; PPDConnector moves attention KV only")
    is_mla = "MLA" in type(spec).__name__
    if cache.dim() == 3:
        planes = (cache.unsqueeze(1),)
    elif cache.dim() == 4 and cpu_isa is not None:
        return _cpu_pages(cache, cpu_isa)
    elif cache.dim() == 4 and not is_mla and cache.shape[3] == size + size_v:
        planes = tuple(cache.split([size, size_v], dim=3))
    elif cache.dim() == 4:
        planes = (cache,)  # a latent, or packed by a quantization: moved as it is
    elif cache.dim() == 5 and 2 in cache.shape[:2]:
        both = cache.unbind(1 if cache.shape[1] == 2 else 0)
        is_nhd = both[0].shape[2] == heads
        planes = tuple(plane.transpose(1, 2) if is_nhd else plane for plane in both)
    else:
        raise ValueError(f"layer {name} has a KV cache of shape {tuple(cache.shape)}, which PPDConnector does not know")
    return Pages(planes=tuple(plane.unsqueeze(2) for plane in planes))


def _cpu_pages(cache: torch.Tensor, isa: str) -> Pages:
    blocks, heads, tokens, both = cache.shape
    channels = both // 2
    halves = cache.view(blocks, heads, tokens * 2, channels)
    planes, orders = [], []
    for index, half in enumerate(halves.chunk(2, dim=2)):
        order = cpu_order(index, tokens, channels, cache.dtype, isa)
        group = transposed_group(order)
        if group is None or group == 1:
            planes.append(half.unsqueeze(2))
        else:
            strides = (*half.stride()[:2], group * channels, 1, group)
            shape = (blocks, heads, tokens // group, group, channels)
            planes.append(half.as_strided(shape, strides, half.storage_offset()))
        orders.append(order if group is None else None)
    return Pages(planes=tuple(planes), orders=tuple(orders))


def cpu_order(index: int, tokens: int, channels: int, dtype: torch.dtype, isa: str) -> torch.Tensor:
    """Where in its half of a block vLLM's CPU kernel stores K (`index` 0) or V (1): element index for [token, channel].

    The kernel writes the digits of each element's number, one digit per pass, small enough to be exact in any type.
    """
    from vllm import _custom_ops as ops

    count = tokens * channels
    numbers = torch.arange(count).reshape(tokens, 1, channels)
    nothing = torch.zeros(tokens, 1, channels, dtype=dtype)
    found = torch.zeros(count, dtype=torch.int64)
    base, power = 128, 1
    while power < count:
        digits = (numbers // power % base).to(dtype)
        page = torch.zeros(1, 1, tokens * 2, channels, dtype=dtype)
        k_page, v_page = page.chunk(2, dim=2)
        k, v = (nothing, digits) if index else (digits, nothing)
        ops.cpu_attn_reshape_and_cache(k, v, k_page, v_page, torch.arange(tokens), isa)
        found += (k_page, v_page)[index].reshape(-1).to(torch.int64) * power
        power *= base
    order = torch.empty(count, dtype=torch.int64)
    order[found] = torch.arange(count)
    if not torch.equal(found.sort().values, torch.arange(count)):
        name = "KV"[index]
        raise ValueError(f"vLLM's CPU attention ({isa}) stores {name} in a way that PPDConnector cannot read back")
    return order.reshape(tokens, channels)


def transposed_group(order: torch.Tensor) -> int | None:
    """Tokens per group if a half is stored as groups of [channels, tokens], 1 if not packed, None for anything else."""
    tokens, channels = order.shape
    for group in (1, 8, 16, 32, 64, 128):
        if tokens % group == 0:
            plain = torch.arange(tokens * channels).reshape(tokens // group, channels, group)
            if torch.equal(order, plain.transpose(1, 2).reshape(tokens, channels)):
                return group
    return None
