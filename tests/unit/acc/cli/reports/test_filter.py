"""filter and annotate: which samples are kept, what is written of them, and notes on them."""

import json

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.reports import equal, failed, parted, published, written

from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Exit, Mistake
from ppd_acc.reports.annotations import read_annotations

SAMPLES = (
    equal("a1", tags=["math"]),
    parted("a2", "real", position=2, shift=3.0, metadata={"topic": "code"}),
    parted("b1", "tie", position=7, shift=0.02, tags=["math"]),
    parted("b2", "unclassified", position=5, prompt_tokens=None),
    failed("c1"),
)


async def kept(tmp_path, *arguments):
    path = written(tmp_path, *SAMPLES)
    result = await run_command("filter", "--report", path, *arguments)
    assert result.exit == Exit.PASS
    return result.data["kept"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "a1 a2 b1 b2 c1"),
        ("--status real,tie", "a2 b1"),
        ("--status real --status error", "a2 c1"),
        ("--divergent-only", "a2 b1 b2"),
        ("--matched-only", "a1"),
        ("--classification unclassified", "b2"),
        ("--min-position 5", "b1 b2"),
        ("--min-position 3 --max-position 6", "b2"),
        ("--min-shift 1", "a2 b2"),
        ("--max-logprob-gap 1", "b1"),
        ("--min-prompt-tokens 6", "a2 b1"),
        ("--max-context-length 6", "a1"),
        ("--min-answer-tokens 10", "a1 a2 b1 b2"),
        ("--min-delta 0.02", "a2 b1 b2"),
        ("--id ^a", "a1 a2"),
        ("--id 2$ --status real", "a2"),
        ("--tag math", "a1 b1"),
        ("--tag topic=code", "a2"),
        ("--search PROMPT", "a1 a2 b1 b2"),
        ("--status real --tag math", ""),
    ],
)
async def test_all_conditions_must_hold(tmp_path, line, expected):
    assert await kept(tmp_path, *line.split()) == expected.split()


async def test_what_is_not_known_is_left_out_and_counted(tmp_path):
    path = written(tmp_path, *SAMPLES)
    result = await run_command("filter", "--report", path, "--min-prompt-tokens", "1")
    assert result.data["kept"] == ["a1", "a2", "b1"]
    assert list(result.data["unknown"].values()) == [2]
    assert any("2 samples left out that do not tell" in note for note in result.notes)


async def test_the_written_report_is_valid_and_counted_anew(tmp_path):
    path = written(tmp_path, *SAMPLES, gate={"outcome": "fail"})
    out = tmp_path / "part.json"
    await run_command("filter", "--report", path, "--id", "^a", "--output", str(out))
    report = read_report(out, "--report")
    assert [sample.sample_id for sample in report.samples] == ["a1", "a2"]
    assert report.totals is not None
    assert (report.totals.samples, report.totals.equal, report.totals.real, report.totals.error) == (2, 1, 1, 0)
    assert report.totals.rate == 0.5
    assert report.gate == {}
    assert report.noise.largest_shift == 0.05
    assert (await run_command("summary", str(out))).data["samples"] == 2


async def test_annotations_go_with_the_samples(tmp_path):
    path = written(tmp_path, *SAMPLES)
    await run_command("annotate", "--report", path, "--sample", "a2", "--label", "kv", "--note", "look")
    await run_command("annotate", "--report", path, "--sample", "b1", "--label", "fine")
    out = tmp_path / "part.json"
    result = await run_command("filter", "--report", path, "--label", "kv", "-o", str(out))
    assert result.data["kept"] == ["a2"]
    assert list(read_annotations(out)) == ["a2"]
    assert (await run_command("filter", "--report", path, "--annotated")).data["kept"] == ["a2", "b1"]
    assert (await run_command("filter", "--report", path, "--unannotated")).data["kept"] == ["a1", "b2", "c1"]


async def test_nothing_kept_is_a_report_of_nothing(tmp_path):
    path = written(tmp_path, *SAMPLES)
    out = tmp_path / "none.json"
    result = await run_command("filter", "--report", path, "--id", "zzz", "-o", str(out))
    assert result.exit == Exit.PASS
    assert "no sample meets the conditions" in result.notes
    assert read_report(out, "--report").samples == []


async def test_the_published_tools_classes_and_words_are_conditions_too(tmp_path):
    row = {"prompt": "p", "baseline_output": "x y", "target_output": "x z", "first_divergence_index": 1}
    path = published(
        tmp_path,
        {"sample_id": 1, **row, "classification": "likely_bug", "context_length": 40},
        {"sample_id": 2, **row, "classification": "likely_uncertainty", "context_length": 4},
    )
    result = await run_command("filter", "--input", path, "--classification", "likely_bug")
    assert result.data["kept"] == ["1"]
    assert (await run_command("filter", "--input", path, "--max-context-length", "5")).data["kept"] == ["2"]


@pytest.mark.parametrize("line", ["--status wrong", "--id (", "--output no/such/dir/x.json"])
async def test_mistakes_end_with_2(tmp_path, line):
    path = written(tmp_path, *SAMPLES)
    with pytest.raises(Mistake):
        await run_command("filter", "--report", path, *line.split(), at=tmp_path)


async def test_an_unknown_sample_is_not_annotated(tmp_path):
    path = written(tmp_path, *SAMPLES)
    with pytest.raises(Mistake, match="did you mean a1"):
        await run_command("annotate", "--report", path, "--sample", "a11", "--note", "x")
    assert not (tmp_path / "results.json.annotations.json").exists()


async def test_labels_add_up_notes_replace_and_clear_removes(tmp_path):
    path = written(tmp_path, *SAMPLES)

    async def annotate(*arguments):
        return (await run_command("annotate", "--report", path, *arguments)).data["annotations"]

    await annotate("--sample", "a2", "--label", "kv", "--note", "one")
    told = await annotate("--sample", "a2", "--label", "late", "--label", "kv", "--note", "two")
    assert told["a2"] == {"sample_id": "a2", "note": "two", "labels": ["kv", "late"]}
    await annotate("--sample", "a1", "--label", "ok")
    assert set(await annotate("--list")) == {"a1", "a2"}
    assert await annotate("--sample", "a2", "--clear") == {}
    assert set(await annotate("--list")) == {"a1"}
    assert await annotate("--clear") == {}


async def test_the_file_is_the_published_tools(tmp_path):
    path = written(tmp_path, *SAMPLES)
    sidecar = tmp_path / "results.json.annotations.json"
    sidecar.write_text('{"annotations": {"a1": {"sample_id": "a1", "note": "hm", "labels": ["x"]}}}')
    await run_command("annotate", "--report", path, "--sample", "a2", "--label", "y")
    told = json.loads(sidecar.read_text())["annotations"]
    assert told == {
        "a1": {"sample_id": "a1", "note": "hm", "labels": ["x"]},
        "a2": {"sample_id": "a2", "note": None, "labels": ["y"]},
    }


@pytest.mark.parametrize("line", ["--note x", "--sample a1", "--sample a1 --label="])
async def test_half_an_annotation_is_a_mistake(tmp_path, line):
    with pytest.raises(Mistake):
        await run_command("annotate", "--report", written(tmp_path, *SAMPLES), *line.split())


async def test_a_broken_sidecar_is_a_mistake_not_lost(tmp_path):
    path = written(tmp_path, *SAMPLES)
    (tmp_path / "results.json.annotations.json").write_text("[")
    with pytest.raises(Mistake, match="not a file of annotations"):
        await run_command("annotate", "--report", path, "--sample", "a1", "--label", "x")
    assert (tmp_path / "results.json.annotations.json").read_text() == "["
