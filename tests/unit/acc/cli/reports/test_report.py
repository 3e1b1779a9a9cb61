import argparse
import json

import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.acc.page_reports import encoded, mixed, published, report, sample

from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Exit, Mistake, Trouble


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(encoded(mixed()))
    return path


async def test_a_report_becomes_one_page(tmp_path, results):
    result = await run_command("report", "--input", "results.json", "--output", "out.html", at=tmp_path)
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert result.exit == Exit.PASS
    assert page.startswith("<!DOCTYPE html>\n<html")
    assert result.data["bytes"] == len(page.encode())
    assert (result.data["samples"], result.data["listed"], result.data["verdict"]) == (60, 60, "fail")
    assert "out.html" in "".join(lines_of(result))


async def test_the_page_is_report_html_unless_it_is_told_otherwise(tmp_path, results):
    await run_command("report", "--input", "results.json", at=tmp_path)
    assert (tmp_path / "report.html").exists()
    settings = Settings(tables={"report": {"output": "mine.html"}})
    await run_command("report", "--report", "results.json", at=tmp_path, settings=settings)
    assert (tmp_path / "mine.html").exists()


async def test_a_different_outcome_ends_with_0_all_the_same(tmp_path):
    (tmp_path / "r.json").write_bytes(encoded(report([sample("a", "real")])))
    assert (await run_command("report", "--input", "r.json", at=tmp_path)).exit == Exit.PASS


async def test_the_published_tools_report_is_read(tmp_path):
    told = {"sample_id": 3, "prompt": "p", "baseline_output": "a b", "target_output": "a c", "exact_match": False,
            "first_divergence_index": 1}  # fmt: skip
    (tmp_path / "r.json").write_bytes(published(told))
    result = await run_command("report", "--input", "r.json", at=tmp_path)
    assert result.data["verdict"] == "inconclusive"
    assert "imported from xpyd-acc schema 2" in (tmp_path / "report.html").read_text(encoding="utf-8")


async def test_notes_beside_the_report_are_in_the_page(tmp_path, results):
    notes = {"annotations": {"s17": {"sample_id": "s17", "note": "look here", "labels": []}}}
    (tmp_path / "results.json.annotations.json").write_text(json.dumps(notes))
    await run_command("report", "--input", "results.json", at=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "look here" in page
    assert "results.json.annotations.json" in page


async def test_what_check_kv_wrote_adds_a_map(tmp_path, results):
    row = {
        "name": "layer_0_key",
        "layer": 0,
        "kind": "key",
        "tokens": 32,
        "starts": [0, 16],
        "relative_l2": [0.1, None],
    }
    (tmp_path / "kv.json").write_text(json.dumps({"kind": "check-kv", "match": False, "heat_map": [row]}))
    await run_command("report", "--input", "results.json", "--kv", "kv.json", at=tmp_path)
    assert '<figure id="kv"' in (tmp_path / "report.html").read_text(encoding="utf-8")


async def test_the_number_of_listed_samples_can_be_set(tmp_path, results):
    result = await run_command("report", "--input", "results.json", "--max-samples", "5", at=tmp_path)
    assert result.data["listed"] == 5
    with pytest.raises(argparse.ArgumentError, match="0 must be 1 or more"):
        await run_command("report", "--input", "results.json", "--max-samples", "0", at=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--input is missing"),
        (["--input", "nowhere.json"], r"--input .*nowhere\.json: No such file"),
        (["--input", "results.json", "--kv", "nowhere.json"], r"--kv .*nowhere\.json: No such file"),
        (["--input", "results.json", "--kv", "results.json"], "what check-kv --json wrote"),
    ],
)
async def test_a_mistake_names_its_flag_and_leaves_no_page(tmp_path, results, arguments, told):
    with pytest.raises(Mistake, match=told):
        await run_command("report", *arguments, at=tmp_path)
    assert not (tmp_path / "report.html").exists()


async def test_a_page_that_cannot_be_written_is_trouble(tmp_path, results):
    with pytest.raises(Trouble, match=r"--output .*nowhere"):
        await run_command("report", "--input", "results.json", "--output", "nowhere/report.html", at=tmp_path)
