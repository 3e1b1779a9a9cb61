"""check-kv's CacheBlend view and its pictures, from the command line on."""

import math

import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.connector.kv_tensors import gaussian, write_npz

from ppd_acc.kv import plots as kv_plots
from ppd_acc.outcome import Mistake


def dumps(folder, one, other):
    write_npz(folder / "a.npz", one)
    write_npz(folder / "b.npz", other)


async def checked(folder, *arguments):
    return await run_command("check-kv", "--kv-dump-a", "a.npz", "--kv-dump-b", "b.npz", *arguments, at=folder)


def told_by(result):
    return "\n".join(lines_of(result))


def deviating(tokens=100):
    """Two layers; V of tokens 10 to 19 deviates by 1 in 8 channels of 2 heads: 16 each."""
    one = {f"layer_{layer}_{kind}": gaussian(2, tokens, 8, seed=layer) for layer in (0, 1) for kind in ("key", "value")}
    other = {name: each.copy() for name, each in one.items()}
    for layer in (0, 1):
        other[f"layer_{layer}_value"][:, 10:20] += 1.0
    return one, other


async def test_the_cacheblend_view_chooses_by_the_squared_difference_of_v(tmp_path):
    dumps(tmp_path, *deviating())
    result = await checked(tmp_path, "--recomp-ratio", "0.125", "--suffix-len", "20")
    view = result.data["cacheblend"]
    (chosen,) = view["check_layers"]
    assert (chosen["layer"], chosen["tokens"]) == (1, (*range(10, 20), *range(80, 100)))
    assert chosen["share"] == 0.3
    assert chosen["highest_chosen"] == pytest.approx(16.0, rel=1e-5)
    assert chosen["coverage"] == pytest.approx(1.0)
    assert view["overlap"]["jaccard"] == [[1.0, 1.0], [1.0, 1.0]]
    assert sum(view["histogram"]["counts"]) == 80
    assert "10 HKVD tokens (16 to 16) and 20 of the suffix are 30 of 100 (30.00%)" in told_by(result)


async def test_the_cacheblend_view_breaks_down_the_time_to_first_token(tmp_path):
    dumps(tmp_path, *deviating())
    (tmp_path / "t.json").write_text('{"t1": 1, "t2": 1.1, "t3": 1.15, "t4": 1.95, "t5": 2.0}')
    result = await checked(tmp_path, "--timings", "t.json", "--check-layers", "0,1")
    view = result.data["cacheblend"]
    assert view["time_to_first_token"]["recompute_s"] == pytest.approx(0.8)
    assert view["recommended_ratio"] == 0.10
    assert [chosen["layer"] for chosen in view["check_layers"]] == [0, 1]
    assert "partial recompute" in told_by(result)


async def test_no_view_is_made_unless_it_is_asked_for(tmp_path):
    dumps(tmp_path, *deviating())
    assert "cacheblend" not in (await checked(tmp_path)).data
    assert "cacheblend" in (await checked(tmp_path, "--cacheblend")).data


async def test_a_layer_captured_twice_is_viewed_once(tmp_path):
    one, other = deviating()
    captured = [
        {f"{name[:8]}{point}_{name[8:]}": each for name, each in side.items() for point in ("after_prefill", "x")}
        for side in (one, other)
    ]
    dumps(tmp_path, *captured)
    result = await checked(tmp_path, "--cacheblend")
    assert result.data["cacheblend"]["layers"] == [0, 1]
    assert any("left out" in note for note in result.notes)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--check-layers", "one"), "'one' is no layer"),
        (("--check-layers", "1,,2"), "'' is no layer"),
        (("--check-layers", "9"), "check layer 9 has no V"),
        (("--suffix-len", "100"), "from 0 to 99"),
        (("--timings", "none.json"), "No such file"),
        (("--plot", "a.txt"), "must end in"),
    ],
)
async def test_mistakes_in_the_view_are_told(tmp_path, arguments, told):
    dumps(tmp_path, *deviating())
    with pytest.raises(Mistake, match=told):
        await checked(tmp_path, *arguments)


async def test_a_view_without_values_is_a_mistake(tmp_path):
    dumps(tmp_path, {"layer_0_key": gaussian(1, 4, 8)}, {"layer_0_key": gaussian(1, 4, 8)})
    with pytest.raises(Mistake, match="needs V"):
        await checked(tmp_path, "--cacheblend")


@pytest.mark.parametrize("suffix", ["png", "svg"])
async def test_pictures_are_drawn(tmp_path, suffix):
    one, other = deviating()
    other["layer_0_key"][0, 3, 3] = math.nan
    dumps(tmp_path, one, other)
    await checked(tmp_path, "--plot", f"heat.{suffix}")
    await checked(tmp_path, "--cacheblend", "--plot", f"deep/kv_deviation.{suffix}")
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    for name in (f"heat.{suffix}", f"deep/kv_deviation.{suffix}"):
        assert (tmp_path / name).read_bytes().startswith(start)


async def test_without_matplotlib_a_picture_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(kv_plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Mistake, match=r"pip install 'ppd-proxy\[plot\]'"):
        await checked(tmp_path, "--plot", "a.png")
