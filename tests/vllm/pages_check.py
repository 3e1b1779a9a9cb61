"""Run by a Python that has torch: what KvCache reads and writes, for every cache layout it knows.

    PYTHONPATH=connector_patches python tests/vllm/pages_check.py [cuda]

On the CPU vLLM's own kernel writes the CPU backend's layout; with `cuda` vLLM is not needed and every accelerator
layout lies on a GPU. Ends with the number of layouts that were checked; an AssertionError names the one that failed.
"""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from ppd_connector import pages
from ppd_connector.kv_cache import KvCache

HEADS, SIZE, BLOCK, BLOCKS = 2, 64, 32, 8
TOKENS = 3 * BLOCK - 5
TABLE = [5, 2, 7]
FIRST, END = BLOCK // 2 + 1, TOKENS - 3


@dataclass
class FullAttentionSpec:
    num_kv_heads: int = HEADS
    head_size: int = SIZE
    head_size_v: int = SIZE


@dataclass
class MLAAttentionSpec:
    num_kv_heads: int = 1
    head_size: int = 2 * SIZE
    head_size_v: int = 2 * SIZE


def store_of(cache: torch.Tensor, spec: object, isa: str | None = None, block: int = BLOCK) -> KvCache:
    other = torch.zeros_like(cache)
    return KvCache(
        {"a": cache, "b": other},
        {"a": spec, "b": spec},
        block_tokens=block,
        cpu_isa=(lambda tensor, spec: isa) if isa else None,
        model={},
        rank=0,
        ranks=1,
    )


def some(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Values of that type, on that device; uint8 is how vLLM keeps 8-bit floats."""
    if like.dtype == torch.uint8:
        return torch.randint(1, 255, shape, dtype=torch.uint8, device=like.device)
    return torch.randn(*shape, device=like.device).to(like.dtype)


def check(what: str, cache: torch.Tensor, spec: object, put, channels: int, isa: str | None = None) -> None:
    """`put(token, block, offset, key, value)` writes one token as the backend would; the payload must hold it."""
    heads = spec.num_kv_heads
    key, value = some(cache, TOKENS, heads, channels), some(cache, TOKENS, heads, channels)
    for token in range(TOKENS):
        put(cache, TABLE[token // BLOCK], token % BLOCK, key[token], value[token])
    store = store_of(cache, spec, isa)
    payload = store.read(0, TABLE, FIRST, END)()
    planes = len(store.geometry.layers[0].channels)
    assert len(payload) == (END - FIRST) * store.geometry.layers[0].bytes_per_token, what
    found = torch.frombuffer(payload, dtype=cache.dtype).view(planes, heads, END - FIRST, channels)
    assert torch.equal(found[0], key[FIRST:END].transpose(0, 1).cpu()), f"{what}: K"
    assert planes == 1 or torch.equal(found[1], value[FIRST:END].transpose(0, 1).cpu()), f"{what}: V"
    store.write(1, [1, 3, 6], FIRST, END, payload, at_token=FIRST)
    store.flush()
    assert bytes(store.read(1, [1, 3, 6], FIRST, END)()) == bytes(payload), f"{what}: written"
    untouched = torch.frombuffer(store.read(1, [1, 3, 6], 0, FIRST)(), dtype=cache.dtype)
    assert not untouched.any(), f"{what}: slots before the first token"
    store.write(1, [0, 2, 4], FIRST + 2, END - 1, payload, at_token=FIRST)
    store.flush()
    part = torch.frombuffer(store.read(1, [0, 2, 4], FIRST + 2, END - 1)(), dtype=cache.dtype)
    assert torch.equal(part.view(planes, heads, -1, channels), found[:, :, 2:-1]), f"{what}: a part of the payload"
    if cache.is_cuda:
        check_device_copies(what, store, payload)


def check_device_copies(what: str, store: KvCache, payload: memoryview) -> None:
    """The path of `transport: nccl` up to NCCL: KV that never leaves the GPU."""
    on_gpu = store.read_device(0, TABLE, FIRST, END)
    assert bytes(store.to_host(on_gpu)) == bytes(payload), f"{what}: read on the GPU"
    store.write_device(1, [3, 0, 7], FIRST, END, on_gpu, at_token=FIRST)
    store.flush()
    assert bytes(store.read(1, [3, 0, 7], FIRST, END)()) == bytes(payload), f"{what}: written on the GPU"


def accelerators(dtype: torch.dtype, device: str = "cpu") -> int:
    def joint(cache, block, offset, key, value):
        cache[block, :, offset, :SIZE], cache[block, :, offset, SIZE:] = key, value

    def nhd(cache, block, offset, key, value):
        cache[block, 0, offset], cache[block, 1, offset] = key, value

    def hnd(cache, block, offset, key, value):
        cache[block, 0, :, offset], cache[block, 1, :, offset] = key, value

    def split(cache, block, offset, key, value):
        cache[0, block, offset], cache[1, block, offset] = key, value

    def latent(cache, block, offset, key, value):
        cache[block, offset] = key[0]

    def latent4(cache, block, offset, key, value):
        cache[block, 0, offset] = key[0]

    spec, mla = FullAttentionSpec(), MLAAttentionSpec()
    zeros = lambda *shape: torch.zeros(*shape, dtype=dtype, device=device)  # noqa: E731
    check("0.30+, HND", zeros(BLOCKS, HEADS, BLOCK, 2 * SIZE), spec, joint, SIZE)
    check("0.30+, NHD", zeros(BLOCKS, BLOCK, HEADS, 2 * SIZE).transpose(1, 2), spec, joint, SIZE)
    check("0.24, NHD", zeros(BLOCKS, 2, BLOCK, HEADS, SIZE), spec, nhd, SIZE)
    check("0.24, heads first", zeros(BLOCKS, 2, HEADS, BLOCK, SIZE), spec, hnd, SIZE)
    check("0.24, HND in memory", zeros(BLOCKS, 2, HEADS, BLOCK, SIZE).transpose(2, 3), spec, nhd, SIZE)
    check("K and V apart", zeros(2, BLOCKS, BLOCK, HEADS, SIZE), spec, split, SIZE)
    check("MLA", zeros(BLOCKS, BLOCK, 2 * SIZE), mla, latent, 2 * SIZE)
    check("MLA, 0.30+", zeros(BLOCKS, 1, BLOCK, 2 * SIZE), mla, latent4, 2 * SIZE)
    return 8


def cpu(dtype: torch.dtype) -> int:
    """vLLM's own kernel writes."""
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    isa = _get_attn_isa(dtype, BLOCK, SIZE)

    def kernel(cache, block, offset, key, value):
        halves = cache.view(BLOCKS, HEADS, 2 * BLOCK, SIZE)
        k_half, v_half = halves.chunk(2, dim=2)
        slot = torch.tensor([block * BLOCK + offset])
        ops.cpu_attn_reshape_and_cache(key[None], value[None], k_half, v_half, slot, isa)

    check(
        f"CPU {isa}", torch.zeros(BLOCKS, HEADS, BLOCK, 2 * SIZE, dtype=dtype), FullAttentionSpec(), kernel, SIZE, isa
    )
    return 1


def packed_otherwise() -> int:
    """K and V that are stored in no order we have a name for."""
    generator = torch.Generator().manual_seed(1)
    orders = tuple(torch.randperm(BLOCK * SIZE, generator=generator).reshape(BLOCK, SIZE) for _ in range(2))
    assert pages.transposed_group(orders[0]) is None
    caches = [torch.zeros(BLOCKS, HEADS, BLOCK, SIZE) for _ in range(2)]
    layer = pages.Pages(planes=tuple(cache.unsqueeze(2) for cache in caches), orders=orders)
    slots = pages.slots_of(TABLE, FIRST, END, block_tokens=BLOCK, page_tokens=BLOCK, device=torch.device("cpu"))
    values = [torch.randn(HEADS, END - FIRST, SIZE) for _ in range(2)]
    layer.write(slots, values)
    found = [torch.empty(HEADS, END - FIRST, SIZE) for _ in range(2)]
    layer.read(slots, found)
    assert all(torch.equal(got, sent) for got, sent in zip(found, values, strict=True))
    token = FIRST + 3
    for cache, order, sent in zip(caches, orders, values, strict=True):
        flat = cache[TABLE[token // BLOCK]].reshape(HEADS, -1)
        assert torch.equal(flat[:, order[token % BLOCK]], sent[:, 3])
    return 1


def every_range() -> int:
    """Tokens from any to any, in groups that are transposed and such that are not."""
    table, device = [3, 7, 1, 5, 8], torch.device("cpu")
    for group in (1, 4, 8):
        for is_transposed in (False, True):
            shape = (9, HEADS, 8 // group, *((5, group) if is_transposed else (group, 5)))
            plane = torch.randn(shape).transpose(3, 4) if is_transposed else torch.randn(shape)
            tokens = plane.transpose(0, 1)[:, table].reshape(HEADS, 40, 5)
            for first in range(25):
                for end in range(first + 1, 41):
                    slots = pages.slots_of(table, first, end, block_tokens=8, page_tokens=8, device=device)
                    found = torch.empty(HEADS, end - first, 5)
                    pages.Pages(planes=(plane,)).read(slots, [found])
                    assert torch.equal(found, tokens[:, first:end]), (group, is_transposed, first, end)
    return 1


def kernel_blocks() -> int:
    """The scheduler's block is four of the cache's."""
    cache = torch.randn(4 * BLOCKS, HEADS, BLOCK // 4, 2 * SIZE)
    small, whole = store_of(cache, FullAttentionSpec()), cache.view(BLOCKS, 4, HEADS, BLOCK // 4, 2 * SIZE)
    payload = torch.frombuffer(small.read(0, TABLE, FIRST, END)(), dtype=torch.float32).view(2, HEADS, -1, SIZE)
    dense = torch.cat([whole[block].transpose(0, 1).reshape(HEADS, BLOCK, 2 * SIZE) for block in TABLE], dim=1)
    assert torch.equal(payload[0], dense[:, FIRST:END, :SIZE])
    assert torch.equal(payload[1], dense[:, FIRST:END, SIZE:])
    return 1


def refused() -> int:
    said = ""
    try:
        store_of(torch.zeros(4, 4), SimpleNamespace(head_size=None))
    except ValueError as error:
        said = str(error)
    assert "SimpleNamespace" in said, "a cache that is no attention KV was taken"
    return 1


def main() -> None:
    if sys.argv[1:] == ["cuda"]:
        torch.manual_seed(0)
        types = (torch.float16, torch.bfloat16, torch.float32, torch.uint8)
        print(sum(accelerators(each, "cuda") for each in types))
        return
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    types = (torch.float32, torch.bfloat16)
    alone = (packed_otherwise, every_range, kernel_blocks, refused)
    print(sum(accelerators(each) + cpu(each) for each in types) + sum(each() for each in alone))


if __name__ == "__main__":
    main()
