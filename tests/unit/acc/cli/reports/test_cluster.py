"""cluster: divergent samples that look alike, and only those."""

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.reports import equal, failed, parted, published, written

from ppd_acc.cli.reports.cluster import features_of
from ppd_acc.outcome import Exit

EARLY = [
    parted(f"early{n}", position=n % 2, length=100, shift=4.0 + 0.1 * n, prompt_tokens=2000 + n) for n in range(10)
]
LATE = [parted(f"late{n}", "tie", position=80 + n, length=100, shift=0.02, prompt_tokens=20 + n) for n in range(6)]
OTHERS = (equal("same"), equal("same too"), failed("broken"))


async def cluster(path, *arguments):
    result = await run_command("cluster", "--input", path, *arguments)
    assert result.exit == Exit.PASS
    return result


async def test_two_kinds_are_found_and_equal_samples_left_out(tmp_path):
    data = (await cluster(written(tmp_path, *EARLY, *OTHERS, *LATE))).data
    assert data["divergent"] == 16
    first, second = data["clusters"]
    assert first["sample_ids"] == [sample.sample_id for sample in EARLY]
    assert second["sample_ids"] == [sample.sample_id for sample in LATE]
    assert second["statuses"] == {"tie": 6}
    assert second["features"]["position"] == {"known": 6, "median": 82.5, "low": 80, "high": 85}
    assert data["silhouette"] > 0.5
    assert second["typical"].startswith("late")


async def test_a_number_of_clusters_is_taken(tmp_path):
    path = written(tmp_path, *EARLY, *LATE)
    assert len((await cluster(path, "--clusters", "3")).data["clusters"]) == 3
    assert len((await cluster(path, "--clusters", "1")).data["clusters"]) == 1
    assert (await cluster(path, "--clusters", "auto")).data == (await cluster(path)).data


async def test_more_clusters_than_kinds_is_told(tmp_path):
    result = await cluster(written(tmp_path, parted("a"), parted("b")), "--clusters", "5")
    assert len(result.data["clusters"]) == 1
    assert "--clusters 5" in result.notes[0]


async def test_no_divergent_sample_is_no_cluster(tmp_path):
    data = (await cluster(written(tmp_path, *OTHERS))).data
    assert (data["divergent"], data["clusters"]) == (0, [])


def test_what_is_not_known_stays_unknown():
    told = features_of(parted("a", prompt_tokens=None, max_delta=None, flip=None))
    assert {name for name, value in told.items() if value is None} == {
        "position", "relative_position", "shift", "max_delta", "prompt_length",
    }  # fmt: skip


async def test_the_published_tools_reports_have_no_shift_and_it_is_said(tmp_path):
    rows = [
        {"sample_id": n, "prompt": "p", "baseline_output": "a b", "target_output": "a c", "first_divergence_index": 1}
        for n in range(3)
    ]
    result = await cluster(published(tmp_path, *rows))
    assert result.data["clusters"][0]["features"]["shift"]["known"] == 0
    assert any("3 of 3 samples do not tell their shift" in note for note in result.notes)


@pytest.mark.parametrize("text", ["0", "-1", "some"])
async def test_a_wrong_number_is_refused(tmp_path, text):
    with pytest.raises((SystemExit, Exception)) as refused:
        await run_command("cluster", "--input", written(tmp_path, *LATE), "--clusters", text)
    assert "clusters" in str(refused.value)
