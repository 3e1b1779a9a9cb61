"""Reading dumps: what a file holds, read in pieces, and what is wrong with one that cannot be read."""

import itertools
import json
import struct
import zipfile

import numpy as np
import pytest
from tests.support.connector.kv_tensors import (
    gaussian,
    layers_of,
    metadata,
    rounded,
    tensor,
    write_npz,
    write_safetensors,
)

from ppd_acc.kv.files import KvFile, KvFileError
from ppd_accuracy.kv.elements import BF16, FP8_E4M3, FP8_E5M2, FP16, FP32, FP64, decode


def values_in(file, name):
    """Read in three uneven pieces."""
    opened = file.open(name)
    size = int(np.prod(opened.shape))
    cuts = (0, size // 3, size // 2, size)
    parts = [decode(opened.read(*ends), opened.element).copy() for ends in itertools.pairwise(cuts)]
    return np.concatenate(parts).reshape(opened.shape)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_dump_of_our_connector_is_read(tmp_path, compressed):
    arrays = layers_of(3)
    path = write_npz(tmp_path / "a.npz", arrays, metadata(token_ids=[5, 6]), compressed=compressed)
    with KvFile(path) as file:
        assert set(file.entries) == set(arrays)
        assert (file.declared, file.block_size, file.token_ids) == (BF16, 16, [5, 6])
        expected = decode(arrays["layer_2_value"], BF16)
        np.testing.assert_array_equal(values_in(file, "layer_2_value"), expected)


def test_an_uncompressed_array_stays_in_the_file(tmp_path):
    with KvFile(write_npz(tmp_path / "a.npz", layers_of(1))) as file:
        assert all(entry.offset is not None for entry in file.entries.values())
        place, first = file.entries["layer_0_key"].offset, layers_of(1)["layer_0_key"]
    assert (tmp_path / "a.npz").read_bytes()[place : place + first.nbytes] == first.tobytes()


def test_our_connectors_own_writer_is_read(tmp_path):
    from tests.support.connector.memory_store import MemoryStore

    from ppd_connector.dumps import Dumper

    store = MemoryStore()
    dumper = Dumper(tmp_path, store, rank=0)
    dumper.dump("r1", [0, 1], list(range(store.block_tokens)), side="prefill")
    dumper.stop()
    with KvFile(tmp_path / "r1_prefill.npz") as file:
        assert file.metadata["request_id"] == "r1"
        assert file.token_ids == list(range(store.block_tokens))
        for name, entry in file.entries.items():
            assert name.startswith("layer_")
            assert entry.element is not None
            assert values_in(file, name).shape[1] == store.block_tokens


@pytest.mark.parametrize(
    ("dtype", "element"),
    [("float64", FP64), ("float32", FP32), ("float16", FP16), ("uint16", BF16), ("uint8", FP8_E4M3), ("int32", FP64)],
)
def test_arrays_without_metadata_have_the_type_of_their_numbers(tmp_path, dtype, element):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    with KvFile(write_npz(tmp_path / "a.npz", {"x": array})) as file:
        assert file.entries["x"].element is element
        expected = decode(array, element) if dtype in ("uint16", "uint8") else array
        np.testing.assert_array_equal(values_in(file, "x"), expected)


@pytest.mark.parametrize(
    ("name", "flag", "element"),
    [
        ("float8_e5m2", None, FP8_E5M2),
        ("float8_e4m3fn", None, FP8_E4M3),
        ("uint8", None, FP8_E4M3),
        (None, FP8_E5M2, FP8_E5M2),
    ],
)
def test_metadata_and_flag_say_what_raw_integers_are(tmp_path, name, flag, element):
    path = write_npz(tmp_path / "a.npz", {"x": np.arange(8, dtype=np.uint8).reshape(1, 2, 4)}, {"dtype": name})
    with KvFile(path, flag) as file:
        assert file.entries["x"].element is element


def test_raw_fp16_is_read_as_the_metadata_say(tmp_path):
    raw = tensor(gaussian(1, 2, 4), "fp16").raw
    with KvFile(write_npz(tmp_path / "a.npz", {"x": raw}, {"dtype": "float16"})) as file:
        np.testing.assert_array_equal(values_in(file, "x"), raw.view(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "read"),
    [((), (1, 1, 1)), ((7,), (1, 1, 7)), ((3, 4), (1, 3, 4)), ((2, 3, 4), (2, 3, 4)), ((5, 2, 3, 4), (10, 3, 4))],
)
def test_other_dimensions_are_heads(tmp_path, shape, read):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    with KvFile(write_npz(tmp_path / "a.npz", {"x": array})) as file:
        assert file.entries["x"].shape == read
        np.testing.assert_array_equal(values_in(file, "x").reshape(shape), array)


@pytest.mark.parametrize("order", ["big endian", "fortran"])
def test_other_byte_and_memory_orders_are_read(tmp_path, order):
    array = gaussian(2, 3, 4)
    stored = array.astype(">f4") if order == "big endian" else np.asfortranarray(array)
    with KvFile(write_npz(tmp_path / "a.npz", {"x": stored})) as file:
        np.testing.assert_array_equal(values_in(file, "x"), array)


def test_texts_and_odd_metadata_are_noted_not_compared(tmp_path):
    np.savez(tmp_path / "a.npz", x=gaussian(1, 2, 4), metadata=np.array("not json"), model=np.array("llama"))
    with KvFile(tmp_path / "a.npz") as file:
        assert set(file.entries) == {"x"}
        assert any("metadata is no JSON object" in note for note in file.notes)
        assert any("'model' is a text" in note for note in file.notes)


def test_arrays_that_hold_no_numbers_have_no_element_type(tmp_path):
    with KvFile(write_npz(tmp_path / "a.npz", {"x": np.zeros((1, 2, 3), complex), "y": np.array(["a"])})) as file:
        assert [entry.element for entry in file.entries.values()] == [None, None]


def test_safetensors_are_read_by_their_header(tmp_path):
    values = gaussian(2, 6, 8)
    arrays = {
        "layer_0_key": ("F32", values),
        "layer_0_value": ("BF16", tensor(values, "bf16").raw),
        "layer_1_key": ("F8_E4M3", tensor(values, "fp8_e4m3").raw),
        "layer_1_value": ("F8_E5M2", tensor(values, "fp8_e5m2").raw),
        "layer_2_key": ("F16", values.astype(np.float16)),
    }
    path = write_safetensors(tmp_path / "a.safetensors", arrays, {"block_size": "32", "token_ids": "[1, 2]", "by": "x"})
    with KvFile(path) as file:
        assert (file.format, file.block_size, file.token_ids, file.metadata["by"]) == ("safetensors", 32, [1, 2], "x")
        for name, element in zip(arrays, ("fp32", "bf16", "fp8_e4m3", "fp8_e5m2", "fp16"), strict=True):
            np.testing.assert_array_equal(values_in(file, name), rounded(values, element), err_msg=name)


def header_of(**about):
    text = json.dumps({"x": {"dtype": "F32", "shape": [1, 1, 2], "data_offsets": [0, 8], **about}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"hello, world", "no .npz and no .safetensors"),
        (b"PK\x03\x04 and nothing more", "cannot be read as .npz"),
        (struct.pack("<Q", 10**6) + b"{", "truncated"),
        (struct.pack("<Q", 5) + b"{]]]]", "cannot be read as .safetensors"),
        (header_of(dtype="I4"), "has dtype I4; known are"),
        (header_of(shape=[1, 1, 3]), "its shape"),
        (header_of(shape=[-1, 1, 2]), "needs dtype, shape and data_offsets"),
        (header_of(data_offsets=[8, 16]), "ends in the middle"),
        (header_of(data_offsets=None), "needs dtype, shape and data_offsets"),
    ],
)
def test_a_file_that_is_no_dump_is_told_by_name(tmp_path, content, told):
    path = tmp_path / "bad.file"
    path.write_bytes(content)
    with pytest.raises(KvFileError, match=told) as caught:
        KvFile(path)
    assert "bad.file" in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_dumps_are_told(tmp_path, share):
    for path in (
        write_npz(tmp_path / "a.npz", layers_of(2)),
        write_safetensors(tmp_path / "a.safetensors", {"x": ("F32", gaussian(2, 50, 8))}),
    ):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(KvFileError):
            KvFile(path)


def test_a_member_shorter_than_its_shape_is_told(tmp_path):
    whole = write_npz(tmp_path / "a.npz", {"x": gaussian(1, 4, 8)})
    with zipfile.ZipFile(whole) as archive:
        content = archive.read("x.npy")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", content[:-4])
    with pytest.raises(KvFileError, match=r"'x' has 252 bytes, its shape needs 256"):
        KvFile(tmp_path / "b.npz")


def test_a_damaged_compressed_member_is_told(tmp_path):
    path = write_npz(tmp_path / "a.npz", {"x": gaussian(4, 64, 16)}, compressed=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with KvFile(path) as file, pytest.raises(KvFileError, match="'x' cannot be read"):
        file.open("x")


def test_python_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(KvFileError, match="Python objects"):
        KvFile(tmp_path / "a.npz")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(KvFileError, match="No such file"):
        KvFile(tmp_path / "none.npz")
    with pytest.raises(KvFileError, match="directory"):
        KvFile(tmp_path)
