"""How many bytes of KV a token takes, from a model's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DTYPE_BYTES = (
    (("float32", "float", "fp32"), 4),
    (("float16", "half", "fp16", "bfloat16", "bf16"), 2),
    (("fp8", "fp8_e4m3", "fp8_e5m2", "float8_e4m3fn", "float8_e5m2", "int8"), 1),
)


def kv_bytes_per_token(model: Mapping[str, Any], dtype: str | None = None) -> int:
    """KV cache bytes of one token over all layers, from the contents of a model's `config.json`.

    layers x 2 (K and V) x KV heads x head size x bytes of a number; models with latent attention (`kv_lora_rank`) keep
    one compressed vector per layer instead. `dtype` is the KV cache's type where it is not the model's. ValueError
    where the contents do not say.
    """
    if not isinstance(model, Mapping):
        raise ValueError("model_config: not a JSON object; give the contents of a model's config.json")
    text: Mapping[str, Any] = model.get("text_config") or model
    if any("linear" in str(kind) or "mamba" in str(kind) for kind in text.get("layer_types") or ()):
        raise ValueError("model_config: some layers keep a state instead of KV; give kv_bytes_per_token instead")
    layers = _dimension(text, "num_hidden_layers", "n_layer")
    name = dtype or text.get("dtype") or text.get("torch_dtype") or model.get("dtype") or model.get("torch_dtype")
    number_bytes = _dtype_bytes(name)
    if text.get("kv_lora_rank"):
        return layers * (_dimension(text, "kv_lora_rank") + _dimension(text, "qk_rope_head_dim")) * number_bytes
    heads = _dimension(text, "num_attention_heads", "n_head")
    has_head_dim = text.get("head_dim") is not None
    head_dim = _dimension(text, "head_dim") if has_head_dim else _dimension(text, "hidden_size", "n_embd") // heads
    kv_heads = heads if text.get("num_key_value_heads") is None else _dimension(text, "num_key_value_heads")
    return layers * 2 * kv_heads * head_dim * number_bytes


def _dimension(model: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if isinstance(model.get(name), int) and model[name] > 0:
            return int(model[name])
    raise ValueError(f"model_config: {' or '.join(names)} is missing; give kv_bytes_per_token instead")


def _dtype_bytes(name: object) -> int:
    for names, size in _DTYPE_BYTES:
        if str(name).removeprefix("torch.") in names:
            return size
    sizes = ", ".join(sorted(name for names, _ in _DTYPE_BYTES for name in names))
    raise ValueError(f"model_config: dtype {name!r} is not one of {sizes}; give kv_cache_dtype")
