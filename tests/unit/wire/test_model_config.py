"""The KV size of one token, computed from a model's config.json."""

import pytest

from ppd_wire.model_config import kv_bytes_per_token

LLAMA = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}


def test_kv_size_of_grouped_query_attention():
    assert kv_bytes_per_token(LLAMA) == 32 * 2 * 8 * 128 * 2


@pytest.mark.parametrize(
    ("change", "size_bytes"),
    [
        pytest.param({"head_dim": 64}, 32 * 2 * 8 * 64 * 2, id="head size that does not follow from the width"),
        pytest.param({"num_key_value_heads": None}, 32 * 2 * 32 * 128 * 2, id="as many KV heads as heads"),
        pytest.param({"torch_dtype": "torch.float32"}, 32 * 2 * 8 * 128 * 4, id="dtype with its module"),
        pytest.param({"torch_dtype": None, "dtype": "float16"}, 32 * 2 * 8 * 128 * 2, id="newer name of the dtype"),
        pytest.param({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 32 * 576 * 2, id="latent attention"),
    ],
)
def test_kv_size_follows_the_model(change, size_bytes):
    assert kv_bytes_per_token(LLAMA | change) == size_bytes


def test_kv_size_takes_another_cache_type():
    assert kv_bytes_per_token(LLAMA, "fp8") == 32 * 2 * 8 * 128


def test_kv_size_of_a_nested_text_model():
    text = {name: value for name, value in LLAMA.items() if name != "torch_dtype"}
    nested = {"text_config": text, "dtype": "bfloat16"}
    assert kv_bytes_per_token(nested) == kv_bytes_per_token(LLAMA)


def test_kv_size_knows_the_names_of_gpt2():
    gpt2 = {"n_layer": 6, "n_head": 12, "n_embd": 768, "dtype": "float32"}
    assert kv_bytes_per_token(gpt2) == 6 * 2 * 12 * 64 * 4


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param({"num_hidden_layers": None}, "num_hidden_layers", id="no layers"),
        pytest.param({"torch_dtype": None}, "dtype None", id="no dtype"),
        pytest.param({"torch_dtype": "int3"}, "'int3'", id="unknown dtype"),
        pytest.param({"layer_types": ["full_attention", "linear_attention"]}, "state", id="layers without KV"),
        pytest.param({"head_dim": "64"}, "head_dim", id="text for a number"),
    ],
)
def test_kv_size_that_cannot_be_told_is_an_error(change, word):
    with pytest.raises(ValueError, match=word):
        kv_bytes_per_token(LLAMA | change)
