"""How large a token's KV cache is: the flags that say so, and the formula in words."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from command_line import at_least
from ppd_wire import model_config

FORMULA = """KV bytes per token = layers x 2 (K and V) x KV heads x head size x bytes per number
Llama-3.1-8B, bf16: 32 x 2 x 8 x 128 x 2    = 131,072 bytes = 128 KiB per token, 125 MiB per 1,000 tokens"""


def add_kv_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--kv-bytes-per-token", type=at_least(1), metavar="N", help="size of one token's KV cache")
    group.add_argument("--model-config", type=Path, metavar="FILE", help="a model's config.json to compute it from")
    parser.add_argument("--kv-cache-dtype", help="type of the KV cache where it is not the model's")


def read_kv_bytes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int | None:
    """Bytes per token as the flags say, None where they do not; ends the program when the file does not tell."""
    if options.model_config is None:
        return None if options.kv_bytes_per_token is None else int(options.kv_bytes_per_token)
    try:
        model = json.loads(options.model_config.read_text(encoding="utf-8"))
        return model_config.kv_bytes_per_token(model, options.kv_cache_dtype)
    except (OSError, ValueError) as error:
        parser.error(f"--model-config: {options.model_config}: {error}")
