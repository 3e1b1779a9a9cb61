"""diff: what changed from one report to the other; it judges nothing."""

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.reports import divergent, sample, write

from ppd_acc.data.report import EngineInfo, Flip, Side
from ppd_acc.outcome import Exit, Mistake


async def diff(tmp_path, old, new, old_fields=None, new_fields=None):
    paths = write(tmp_path / "old.json", old, **old_fields or {}), write(tmp_path / "new.json", new, **new_fields or {})
    return await run_command("diff", "--old", paths[0], "--new", paths[1])


async def test_changed_samples_are_shown_with_both_answers_and_nothing_is_judged(tmp_path):
    result = await diff(tmp_path, divergent((), 10), divergent({4}, 10))
    assert result.exit == Exit.PASS
    assert (result.data["unchanged"], [each["sample_id"] for each in result.data["changed"]]) == (9, ["4"])
    assert {"old": "equal", "new": "real", "samples": 1} in result.data["statuses"]


async def test_a_first_difference_that_moved_is_a_change(tmp_path):
    moved = sample("0", "real", flip=Flip(position=1))
    result = await diff(tmp_path, [sample("0", "real")], [moved])
    (row,) = result.data["changed"]
    assert (row["before"]["first_divergence"], row["now"]["first_divergence"]) == (3, 1)


async def test_an_answer_that_changed_is_told_in_both_versions(tmp_path):
    other = sample("0", target=Side(text="b", tokens=[7], finish_reason="stop"))
    (row,) = (await diff(tmp_path, [sample("0")], [other])).data["changed"]
    assert row["target"] == {"old": "0 1 2 3 4", "new": "b"}
    assert "baseline" not in row


async def test_settings_and_engines_that_differ_are_told(tmp_path):
    old = {"settings": {"temperature": 0.0, "seed": 1}, "target": EngineInfo(url="http://t", version="0.12")}
    new = {"settings": {"temperature": 0.7, "seed": 1}, "target": EngineInfo(url="http://t", version="0.32")}
    result = await diff(tmp_path, [sample("0")], [sample("0")], old, new)
    assert result.data["settings"] == {
        "temperature": {"old": 0.0, "new": 0.7},
        "target version": {"old": "0.12", "new": "0.32"},
    }


async def test_no_common_id_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="no sample_id in common"):
        await diff(tmp_path, [sample("0")], [sample("1")])
