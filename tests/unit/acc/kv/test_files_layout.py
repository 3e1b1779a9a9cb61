"""The order of axes: how arrays are read is told, and the other order can be said."""

import numpy as np
import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.connector.kv_tensors import layers_of, metadata, write_npz, write_safetensors

from ppd_acc.kv.files import KvFile
from ppd_acc.outcome import Exit

HINT = "more heads than tokens: if the arrays are (tokens, heads, channels), say --layout tokens-heads"


def tokens_first(arrays):
    return {name: np.ascontiguousarray(each.transpose(1, 0, 2)) for name, each in arrays.items()}


def zero_tail():
    one = layers_of(2, (4, 64, 32))
    other = {name: each.copy() for name, each in one.items()}
    for each in other.values():
        each[:, 48:] = 0
    return one, other


async def checked(folder, one, other, *arguments, about=None):
    write_npz(folder / "a.npz", one, about)
    write_npz(folder / "b.npz", other, about)
    return await run_command("check-kv", "--baseline", "a.npz", "--target", "b.npz", *arguments, at=folder)


def normal(data):
    return {name: each for name, each in data.items() if name not in ("baseline", "target", "layers")}


async def test_tokens_first_arrays_give_what_heads_first_ones_do(tmp_path):
    one, other = zero_tail()
    plain = await checked(tmp_path, one, other, "--per", "head")
    turned = await checked(
        tmp_path, tokens_first(one), tokens_first(other), "--per", "head", "--layout", "tokens-heads"
    )
    assert "zero tail: tokens 48 to 63" in "\n".join(lines_of(turned))
    assert normal(turned.data) == normal(plain.data)
    assert turned.data["layers"][0]["per"] == plain.data["layers"][0]["per"]


async def test_how_arrays_were_read_is_told_and_more_heads_than_tokens_are_noted(tmp_path):
    one, other = zero_tail()
    result = await checked(tmp_path, tokens_first(one), tokens_first(other))
    assert "read as 64 heads, 4 tokens, 32 channels" in list(lines_of(result))
    assert result.data["read_as"] == [{"heads": 64, "tokens": 4, "channels": 32, "arrays": 4}]
    assert HINT in result.notes
    result = await checked(tmp_path, tokens_first(one), tokens_first(other), "--layout", "tokens-heads")
    assert "read as 4 heads, 64 tokens, 32 channels" in list(lines_of(result))
    assert result.notes == ()


async def test_a_layout_that_gives_more_heads_than_tokens_is_noted_too(tmp_path):
    result = await checked(tmp_path, *zero_tail(), "--layout", "tokens-heads")
    assert any("leave out --layout tokens-heads" in note for note in result.notes)


async def test_a_short_prompt_in_our_own_dumps_is_no_reason_for_a_note(tmp_path):
    arrays = layers_of(1, (8, 3, 16))
    assert (await checked(tmp_path, arrays, arrays, about=metadata())).notes == ()
    assert (await checked(tmp_path, arrays, arrays)).notes == (HINT,)


async def test_arrays_of_several_shapes_are_counted(tmp_path):
    arrays = layers_of(2, (4, 64, 32)) | {"layer_9_latent": np.ones((1, 64, 1), np.float32)}
    result = await checked(tmp_path, arrays, arrays)
    told = "read as 4 heads, 64 tokens, 32 channels (4 arrays); 1 head, 64 tokens, 1 channel (1 array)"
    assert told in list(lines_of(result))


async def test_the_layout_is_of_arrays_with_three_dimensions_only(tmp_path):
    arrays = {"flat": np.ones((64, 32), np.float32), "deep": np.ones((2, 4, 64, 32), np.float32)}
    result = await checked(tmp_path, arrays, arrays, "--layout", "tokens-heads")
    assert {(each["heads"], each["tokens"]) for each in result.data["read_as"]} == {(1, 64), (8, 64)}


@pytest.mark.parametrize("kind", ["npz", "compressed", "fortran", "safetensors"])
def test_every_format_is_read_with_the_tokens_first(tmp_path, kind):
    heads_first = np.arange(3 * 700 * 64, dtype=np.uint16).reshape(3, 700, 64)
    stored = np.ascontiguousarray(heads_first.transpose(1, 0, 2))
    path = tmp_path / "x"
    if kind == "safetensors":
        write_safetensors(path, {"x": ("BF16", stored)})
    else:
        path = tmp_path / "x.npz"
        write_npz(
            path, {"x": np.asfortranarray(stored) if kind == "fortran" else stored}, compressed=kind == "compressed"
        )
    with KvFile(path, layout="tokens-heads") as file:
        found = file.open("x")
        assert found.shape == (3, 700, 64)
        np.testing.assert_array_equal(found.read(5, 100_000), heads_first.reshape(-1)[5:100_000])


async def test_empty_arrays_with_the_tokens_first_are_told_as_empty(tmp_path):
    arrays = {"x": np.zeros((4, 0, 8), np.float32)}
    result = await checked(tmp_path, arrays, arrays, "--layout", "tokens-heads")
    assert (result.exit, result.data["layers"][0]["status"]) == (Exit.DIFFERENT, "empty")
