"""The faults that our connector can plant are each told by name from the dumps of both engines."""

import pytest
from tests.support.acc.commands import run_command
from tests.support.connector.kv_tensors import layers_of, metadata, write_npz

from ppd_acc.outcome import Exit
from ppd_connector.faults import Drawn, apply, parse

LAYERS, SHAPE, BLOCK = 6, (4, 128, 32), 16


def planes_of(arrays):
    return [[arrays[f"layer_{layer}_key"], arrays[f"layer_{layer}_value"]] for layer in range(LAYERS)]


def damaged(fault):
    """The target's dump: as it arrives under the fault."""
    one, before = layers_of(LAYERS, SHAPE), layers_of(LAYERS, SHAPE, seed=1)
    stale = planes_of({name: each[:, :48] for name, each in before.items()})
    drawn = Drawn("abc123", parse(fault))
    layers = apply(drawn, planes_of(one), ["bfloat16"] * LAYERS, BLOCK, stale)
    return {
        f"layer_{layer}_{kind}": plane
        for layer, planes in enumerate(layers)
        for kind, plane in zip(("key", "value"), planes, strict=True)
    }


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        ("layer_swap", "moved_layers", "layers 2 and 3 are swapped (key and value)"),
        ("block_shift", "moved_tokens", "block i holds block i+1 (of 16 tokens), blocks 0 to 6: tokens 0 to 111"),
        ("stale", "stale", "stale or foreign content: tokens 0 to 47 (blocks 0 to 2 of 16 tokens)"),
        ("zero_tail", "zero", "zero tail: tokens 96 to 127 (blocks 6 to 7 of 16 tokens)"),
        ("scale:1.5", "scaled", "scaled: the target is 1.5 times the baseline"),
    ],
)
async def test_a_planted_fault_is_told_with_its_place(tmp_path, fault, kind, told):
    result = await held_against(tmp_path, damaged(fault))
    finding = result.data["findings"][0]
    assert (result.exit, finding["kind"], finding["text"]) == (Exit.DIFFERENT, kind, told)


async def test_kv_that_went_through_fp8_is_told_to_have_lost_precision(tmp_path):
    result = await held_against(tmp_path, damaged("fp8"))
    assert result.exit == Exit.DIFFERENT
    assert all(
        "precision lost: consistent with fp8_e4m3 rounding" in each["reason"] for each in result.data["layers"]
    )


async def test_turned_bits_are_told_as_scattered_differences(tmp_path):
    result = await held_against(tmp_path, damaged("bitflip:0.001"))
    kinds = {finding["kind"] for finding in result.data["findings"]}
    assert result.exit == Exit.DIFFERENT
    assert kinds <= {"scattered", "stale", "zero", "not_finite"}


async def held_against(folder, target):
    write_npz(folder / "a.npz", layers_of(LAYERS, SHAPE), metadata())
    write_npz(folder / "b.npz", target, metadata(side="decode"))
    return await run_command("check-kv", "--kv-dump-a", "a.npz", "--kv-dump-b", "b.npz", at=folder)


async def test_a_few_turned_bits_are_counted(tmp_path):
    """One among small numbers may be within the tolerance of its row; that it is alone is told."""
    result = await held_against(tmp_path, damaged("bitflip:0.00001"))
    (turned,) = [each for each in result.data["layers"] if each["status"] != "identical"]
    assert (turned["changed"], turned["max_ulp"] >= 16) == (1, True)
    assert turned["reason"].endswith("1 of 16384 elements differ") or not turned["is_pass"]
