"""check-kv from the command line on: exit codes, JSON, what is told, with dumps of every layout."""

import json

import numpy as np
import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.connector.kv_tensors import (
    gaussian,
    layers_of,
    metadata,
    rounded,
    tensor,
    write_npz,
    write_safetensors,
)

from ppd_acc.cli import main as program
from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Exit

# What the published package (0.1.0) prints for `published()`: max_abs_diff, mean_abs_diff, cosine_similarity.
PUBLISHED = {
    "layer_0_key": (0.0390625, 0.007960240321346757, 0.999948336495884),
    "layer_2_value": (0.8984375, 0.16026539129741263, 0.999948195566292),
    "layer_10_key": (0.0003914833068847656, 8.022296242415905e-05, 0.9999493486069977),
}


def published():
    generator = np.random.default_rng(7)
    one, other = {}, {}
    for name, scale in (("layer_0_key", 1.0), ("layer_2_value", 20.0), ("layer_10_key", 0.01)):
        values = generator.standard_normal((4, 33, 64)) * scale
        one[name] = values.astype(np.float16)
        other[name] = (values + generator.standard_normal(values.shape) * scale * 0.01).astype(np.float16)
    return one, other


def dumps(folder, one, other, about=None, other_about=None, **options):
    write_npz(folder / "a.npz", one, about, **options)
    write_npz(folder / "b.npz", other, other_about if other_about is not None else about, **options)


async def checked(folder, *arguments, settings=None):
    pair = ("--kv-dump-a", "a.npz", "--kv-dump-b", "b.npz")
    return await run_command("check-kv", *pair, *arguments, settings=settings, at=folder)


def told_by(result):
    return "\n".join(lines_of(result))


def array(result, name):
    return next(each for each in result.data["layers"] if each["name"] == name)


async def test_equal_dumps_pass(tmp_path):
    dumps(tmp_path, layers_of(3), layers_of(3), metadata())
    result = await checked(tmp_path)
    assert (result.exit, result.data["match"], result.data["different"]) == (Exit.PASS, True, [])
    assert told_by(result) == "read as 2 heads, 64 tokens, 16 channels\nMATCH: 6 arrays, 6 identical"


async def test_numbers_are_those_of_the_published_package(tmp_path):
    dumps(tmp_path, *published())
    result = await checked(tmp_path)
    for name, (max_abs, mean_abs, cosine) in PUBLISHED.items():
        found = array(result, name)
        assert found["max_abs"] == max_abs
        assert found["mean_abs"] == pytest.approx(mean_abs, rel=1e-6)
        assert found["cosine"] == pytest.approx(cosine, abs=1e-9)
    assert [each["name"] for each in result.data["layers"]] == ["layer_0_key", "layer_2_value", "layer_10_key"]


async def test_published_limits_judge_as_the_published_package_does(tmp_path):
    dumps(tmp_path, *published())
    result = await checked(tmp_path, "--max-abs-threshold", "1e-3", "--cosine-threshold", "0.999")
    assert result.data["different"] == ["layer_0_key", "layer_2_value"]
    assert result.exit == Exit.DIFFERENT


async def test_limits_of_the_configuration_file_hold(tmp_path):
    dumps(tmp_path, *published())
    settings = Settings(tables={"kv": {"max_abs_threshold": 1.0}})
    assert (await checked(tmp_path, settings=settings)).exit == Exit.PASS
    assert (await checked(tmp_path, "--max-abs-threshold", "0.5", settings=settings)).exit == Exit.DIFFERENT


async def test_both_spellings_of_the_files_work(tmp_path):
    dumps(tmp_path, layers_of(1), layers_of(1))
    result = await run_command("check-kv", "--baseline", "a.npz", "--target", "b.npz", at=tmp_path)
    assert result.exit == Exit.PASS


@pytest.mark.parametrize("name", ["bf16", "fp16"])
async def test_fp32_against_its_rounding_is_told_as_such(tmp_path, name):
    values = gaussian(2, 40, 32, scale=20.0)
    dumps(tmp_path, {"layer_0_key": values}, {"layer_0_key": rounded(values, name)})
    result = await checked(tmp_path)
    assert result.exit == Exit.PASS
    assert array(result, "layer_0_key")["consistent_with"] == name
    assert told_by(result).splitlines()[-1].endswith(f"consistent with {name} rounding")


@pytest.mark.parametrize("stored", ["fp32", "bf16 and fp8"])
async def test_a_target_in_fp8_of_a_baseline_that_is_not_lost_precision(tmp_path, stored):
    values = gaussian(2, 40, 32)
    one, other, about, other_about = values, rounded(values, "fp8_e5m2"), None, None
    if stored != "fp32":
        one, other = tensor(values, "bf16").raw, tensor(values, "fp8_e5m2").raw
        about, other_about = metadata(), metadata(dtype="float8_e5m2")
    dumps(tmp_path, {"layer_0_key": one}, {"layer_0_key": other}, about, other_about)
    result = await checked(tmp_path)
    assert result.exit == Exit.DIFFERENT
    assert "precision lost: consistent with fp8_e5m2 rounding" in array(result, "layer_0_key")["reason"]
    assert "precision lost: consistent with fp8_e5m2 rounding" in told_by(result)
    assert (await checked(tmp_path, "--cosine-threshold", "0.99")).exit == Exit.PASS


@pytest.mark.parametrize("arguments", [(), ("--max-abs-threshold", "inf"), ("--cosine-threshold", "-1")])
async def test_a_nan_never_passes(tmp_path, arguments):
    other = layers_of(2)
    other["layer_1_value"][1, 7, 3] = 0x7FC0
    dumps(tmp_path, layers_of(2), other, metadata())
    result = await checked(tmp_path, *arguments)
    assert (result.exit, result.data["different"]) == (Exit.DIFFERENT, ["layer_1_value"])
    assert array(result, "layer_1_value")["nan_target"] == 1
    assert "NaN or infinite numbers in token 7, head 1 [layer_1_value]" in told_by(result)


def test_json_is_strict_even_where_numbers_are_none(tmp_path, capsys):
    one, other = layers_of(2), layers_of(2)
    one["layer_0_key"][...] = 0x7FC0
    other["layer_1_key"][...] = 0
    one["layer_1_value"][...] = 0
    dumps(tmp_path, one, other, metadata())
    files = ("--baseline", str(tmp_path / "a.npz"), "--target", str(tmp_path / "b.npz"))
    code = program.main(["check-kv", *files, "--per", "token", "--per", "head", "--per", "block", "--json", "-"])

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    told = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert (code, told["kind"], told["exit"]) == (1, "check-kv", 1)
    broken, _, _, infinite = told["layers"]
    assert (broken["mse"], broken["nan_baseline"], broken["pairs"]) == (None, 2048, 0)
    assert (infinite["relative_l2"], infinite["cosine"]) == (None, 0.0)
    assert {axis: len(found["mse"]) for axis, found in infinite["per"].items()} == {"token": 64, "head": 2, "block": 4}


async def test_swapped_layers_are_one_finding_and_not_four(tmp_path):
    one = layers_of(4)
    other = dict(one)
    for kind in ("key", "value"):
        other[f"layer_1_{kind}"], other[f"layer_2_{kind}"] = one[f"layer_2_{kind}"], one[f"layer_1_{kind}"]
    dumps(tmp_path, one, other, metadata())
    result = await checked(tmp_path)
    assert [finding["text"] for finding in result.data["findings"]] == ["layers 1 and 2 are swapped (key and value)"]


async def test_a_shift_in_every_array_is_told_once(tmp_path):
    one = layers_of(2)
    other = {name: np.concatenate([each[:, 16:], each[:, -16:]], axis=1) for name, each in one.items()}
    dumps(tmp_path, one, other, metadata())
    result = await checked(tmp_path)
    (finding,) = result.data["findings"]
    assert (finding["kind"], finding["offset"], len(finding["arrays"])) == ("moved_tokens", 16, 4)
    assert "block i holds block i+1 (of 16 tokens), blocks 0 to 2: tokens 0 to 47 [all 4 arrays]" in told_by(result)


async def test_the_block_size_is_the_flags_else_the_dumps_else_16(tmp_path):
    dumps(tmp_path, layers_of(1), layers_of(1), metadata(block_size=32))
    assert (await checked(tmp_path)).data["block_size"] == 32
    assert (await checked(tmp_path, "--block-size", "8")).data["block_size"] == 8
    dumps(tmp_path, layers_of(1), layers_of(1))
    assert (await checked(tmp_path)).data["block_size"] == 16


async def test_dumps_of_different_prompts_do_not_match(tmp_path):
    dumps(tmp_path, layers_of(1), layers_of(1), metadata(token_ids=[1, 2, 3]), metadata(token_ids=[1, 9, 3]))
    result = await checked(tmp_path)
    assert result.exit == Exit.DIFFERENT
    assert "token ids differ from position 1 on" in told_by(result)


async def test_what_is_on_one_side_only_or_has_another_shape_does_not_match(tmp_path):
    one, other = layers_of(2), layers_of(2)
    del other["layer_0_key"], one["layer_1_value"]
    other["layer_1_key"] = other["layer_1_key"][:, :10]
    dumps(tmp_path, one, other)
    result = await checked(tmp_path)
    assert result.exit == Exit.DIFFERENT
    found = {each["name"]: (each["status"], each["reason"]) for each in result.data["layers"]}
    assert found == {
        "layer_0_key": ("missing", "only in the baseline"),
        "layer_0_value": ("identical", "identical"),
        "layer_1_key": ("shape", "shape [2, 64, 16] against [2, 10, 16]"),
        "layer_1_value": ("missing", "only in the target"),
    }
    assert "layer_0_key" in told_by(result)


@pytest.mark.parametrize(
    ("value", "status", "told"),
    [
        (np.zeros((2, 0, 8), np.float32), "empty", "no elements"),
        (np.zeros((2, 3), complex), "type", "complex128 holds no numbers"),
        (np.array(["a", "b"]), "type", "holds no numbers"),
    ],
)
async def test_arrays_that_cannot_be_compared_do_not_match(tmp_path, value, status, told):
    dumps(tmp_path, {"x": value}, {"x": value})
    result = await checked(tmp_path)
    assert (result.exit, array(result, "x")["status"]) == (Exit.DIFFERENT, status)
    assert told in array(result, "x")["reason"]


async def test_a_number_of_no_dimension_is_compared(tmp_path):
    dumps(tmp_path, {"scale": np.array(0.5)}, {"scale": np.array(0.5)})
    assert (await checked(tmp_path)).exit == Exit.PASS
    dumps(tmp_path, {"scale": np.array(0.5)}, {"scale": np.array(0.25)})
    assert (await checked(tmp_path)).exit == Exit.DIFFERENT


async def test_the_published_tools_own_captures_can_be_compared(tmp_path):
    arrays = {
        f"layer_{layer}_{point}_{kind}": gaussian(2, 8, 4, seed=layer).astype(np.float16)
        for layer in (0, 2, 10)
        for point in ("after_prefill", "after_transfer")
        for kind in ("key", "value")
    }
    about = {"success": True, "num_layers": 3, "layer_indices": [0, 2, 10], "metadata": {"mock": True}, "errors": []}
    dumps(tmp_path, arrays, arrays, about)
    result = await checked(tmp_path)
    assert result.exit == Exit.PASS
    assert [each["layer"] for each in result.data["layers"]] == [0] * 4 + [2] * 4 + [10] * 4


async def test_npz_and_safetensors_can_be_held_against_each_other(tmp_path):
    one = layers_of(2)
    write_npz(tmp_path / "a.npz", one, metadata(), compressed=True)
    write_safetensors(tmp_path / "b.safetensors", {name: ("BF16", each) for name, each in one.items()})
    result = await run_command("check-kv", "--baseline", "a.npz", "--target", "b.safetensors", at=tmp_path)
    assert (result.exit, result.data["target"]["format"]) == (Exit.PASS, "safetensors")


async def test_the_dtype_flag_says_whose_rounding_is_allowed(tmp_path):
    values = gaussian(2, 40, 32)
    dumps(tmp_path, {"x": values}, {"x": rounded(values, "bf16")})
    assert (await checked(tmp_path, "--dtype", "fp32")).exit == Exit.DIFFERENT
    assert (await checked(tmp_path, "--dtype", "bfloat16")).exit == Exit.PASS


async def test_metadata_dtypes_hold_unless_an_array_is_coarser(tmp_path):
    values = gaussian(2, 40, 32)
    raw = tensor(values, "fp8_e4m3").raw
    dumps(tmp_path, {"x": values, "y": raw}, {"x": rounded(values, "fp8_e4m3"), "y": raw ^ 1}, metadata())
    result = await checked(tmp_path)
    assert (array(result, "x")["tolerance_dtype"], array(result, "x")["status"]) == ("bf16", "different")
    assert (array(result, "y")["tolerance_dtype"], array(result, "y")["status"]) == ("fp8_e4m3", "rounding")


async def test_errors_that_rise_with_the_layers_are_told(tmp_path):
    one = {f"layer_{layer}_key": gaussian(2, 40, 32, seed=layer) for layer in range(12)}
    other = {
        name: each + gaussian(2, 40, 32, seed=99) * 1e-3 * (1 + read) for read, (name, each) in enumerate(one.items())
    }
    dumps(tmp_path, one, other)
    result = await checked(tmp_path)
    (trend,) = result.data["trends"]
    assert (trend["kind"], trend["spearman"]) == ("key", pytest.approx(1.0))
    assert "precision loss that accumulates" in told_by(result)


async def test_the_heat_map_has_a_row_for_each_array_and_at_most_128_columns(tmp_path):
    one = layers_of(1, (1, 1000, 8))
    other = {name: each.copy() for name, each in one.items()}
    other["layer_0_key"][0, 700] = 0
    dumps(tmp_path, one, other)
    row, clean = (await checked(tmp_path)).data["heat_map"]
    assert len(row["starts"]) == len(row["relative_l2"]) == 128
    (hot,) = [place for place, error in enumerate(row["relative_l2"]) if error]
    assert (row["relative_l2"][hot], row["starts"][hot] <= 700 < row["starts"][hot + 1]) == (1.0, True)
    assert not any(clean["relative_l2"])


@pytest.mark.parametrize("axis", ["head", "block", "token"])
async def test_per_axis_tables_name_the_worst_place(tmp_path, axis):
    one = layers_of(1)
    other = {name: each.copy() for name, each in one.items()}
    other["layer_0_key"][1, 40] = 0
    dumps(tmp_path, one, other, metadata())
    result = await checked(tmp_path, "--per", axis)
    lines = told_by(result).splitlines()
    title = next(place for place, line in enumerate(lines) if "the worst of" in line)
    assert lines[title + 3].split()[0] == {"head": "1", "block": "2", "token": "40"}[axis]
    assert array(result, "layer_0_key")["worst"] == {"head": 1, "block": 2, "token": 40}


def ends(capsys, *arguments):
    code = program.main(["check-kv", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, err


def test_files_that_are_no_dumps_end_with_2_and_different_contents_with_1(tmp_path, capsys):
    dumps(tmp_path, layers_of(1), layers_of(2))
    good = tmp_path / "a.npz"
    assert ends(capsys, "--baseline", good, "--target", tmp_path / "b.npz")[0] == 1
    bad = tmp_path / "bad.npz"
    bad.write_bytes(good.read_bytes()[:200])
    code, told = ends(capsys, "--baseline", good, "--target", bad)
    assert (code, "bad.npz cannot be read as .npz" in told) == (2, True)
    assert ends(capsys, "--baseline", good, "--target", tmp_path / "none.npz")[0] == 2
    assert ends(capsys, "--baseline", good)[0] == 2
    assert ends(capsys, "--baseline", good, "--kv-dump-a", good, "--target", good)[0] == 2
    np.savez(tmp_path / "empty.npz")
    code, told = ends(capsys, "--baseline", tmp_path / "empty.npz", "--target", tmp_path / "empty.npz")
    assert (code, "hold no arrays" in told) == (2, True)
    assert ends(capsys, "--baseline", good, "--target", good, "--dtype", "int3")[0] == 2
    assert ends(capsys, "--baseline", good, "--target", good, "--max-abs-threshold", "nan")[0] == 2
