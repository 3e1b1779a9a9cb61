"""batch-compare: what is judged, what one failed sample does, what is written, and going on after a kill."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.acc.commands import lines_of, run_command
from tests.support.acc.engines import (
    AT,
    FAULTS,
    NOISE_NATS,
    answering,
    chat_answer,
    faulty_engine,
    pair,
    scripted_engine,
)
from tests.support.acc.reports import dataset, rows_in

from ppd_acc.cli.settings import Settings
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Exit, Mistake, Trouble


async def compared(tmp_path, gaps, *arguments, count=10, noise="2", settings=None):
    """`gaps` are the margins in nats of the prompts that differ."""
    async with pair(gaps) as (baseline, target):
        return await run_command(
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, count),
            "--noise-floor", noise, "--retry-delay", "0", *arguments, settings=settings,
        )  # fmt: skip


async def test_equal_answers_pass_in_the_order_of_the_dataset(tmp_path):
    result = await compared(tmp_path, {}, count=30)
    assert result.exit == Exit.PASS
    assert [sample.sample_id for sample in result.data["samples"]] == [f"s{number}" for number in range(30)]
    assert result.data["totals"].equal == 30
    assert result.data["noise"].largest_shift == pytest.approx(NOISE_NATS)


async def test_a_difference_within_the_noise_is_a_tie_and_passes(tmp_path):
    result = await compared(tmp_path, {"q3": NOISE_NATS / 3})
    assert (result.exit, result.data["totals"].tie, result.data["samples"][3].status) == (Exit.PASS, 1, "tie")


async def test_one_real_difference_fails_and_is_scored_by_the_baseline(tmp_path):
    result = await compared(tmp_path, {"q3": 3.0})
    sample = result.data["samples"][3]
    assert (result.exit, sample.status, sample.flip.position) == (Exit.DIFFERENT, "real", AT)
    assert sample.forced.tokens == 8
    assert sample.forced.max_delta_at == AT
    assert result.data["gate"]["outcome"] == "fail"


async def test_no_force_asks_the_baseline_for_no_score(tmp_path):
    result = await compared(tmp_path, {"q3": 3.0}, "--no-force")
    assert result.data["samples"][3].forced is None


async def test_without_a_noise_floor_a_difference_is_inconclusive(tmp_path):
    result = await compared(tmp_path, {"q3": 3.0}, noise="0")
    assert (result.exit, result.data["totals"].unclassified) == (Exit.INCONCLUSIVE, 1)


async def test_sampled_answers_are_not_classified(tmp_path):
    result = await compared(tmp_path, {"q3": 3.0}, "--temperature", "0.7")
    assert result.data["samples"][3].status == "unclassified"
    assert any("temperature is 0.7" in note for note in result.notes)


@pytest.mark.parametrize(
    ("count", "real", "limit", "code"),
    [
        pytest.param(40, 0, "0.2", Exit.PASS, id="none of 40 is under a fifth: Wilson up to 8.8 %"),
        pytest.param(40, 20, "0.2", Exit.DIFFERENT, id="half of 40 is over a fifth: Wilson from 35 %"),
        pytest.param(4, 0, "0.2", Exit.INCONCLUSIVE, id="none of 4 may still be a fifth: Wilson up to 49 %"),
        pytest.param(4, 2, "0.2", Exit.INCONCLUSIVE, id="2 of 4 at a limit of a fifth: Wilson 15 % to 85 %"),
        pytest.param(20, 1, "0", Exit.DIFFERENT, id="a limit of 0 allows none"),
    ],
)
async def test_a_limit_is_passed_and_failed_by_the_interval(tmp_path, count, real, limit, code):
    gaps = {f"q{number}": 3.0 for number in range(real)}
    result = await compared(tmp_path, gaps, "--fail-threshold", limit, count=count, noise="40")
    assert result.exit == code
    if code == Exit.INCONCLUSIVE:
        assert result.data["gate"]["more_samples"] > 0


async def test_what_cannot_be_classified_keeps_a_limit_from_passing_but_not_from_failing(tmp_path):
    gaps = {f"q{number}": 3.0 for number in range(10)}
    unsure = await compared(tmp_path, gaps, "--fail-threshold", "0.2", count=40, noise="0")
    assert unsure.exit == Exit.INCONCLUSIVE
    assert "10 more could not be classified" in unsure.data["gate"]["reason"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failed_sample_is_one_error_row_and_the_gate_says_so(tmp_path, fault):
    async with scripted_engine(answering({}, is_target=False)) as baseline, faulty_engine(fault) as target:
        arguments = [
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 30),
            "--noise-floor", "1", "--retries", "0", "--timeout", "1", "--concurrency", "16",
        ]  # fmt: skip
        partial = await run_command(*arguments)
        allowed = await run_command(*arguments, "--max-error-share", "0.1")
    assert partial.exit == Exit.INFRASTRUCTURE
    failed = [sample for sample in partial.data["samples"] if sample.status == "error"]
    reason = {"status": "status_500", "hang": "timeout", "broken": "broken"}.get(fault, "bad_answer")
    assert [(each.failed, each.error_reason) for each in failed] == [("target", reason)] * 3
    assert partial.data["totals"].equal == 27
    assert partial.data["gate"]["outcome"] == "partial"
    assert "3 of 30 samples are errors" in partial.data["gate"]["reason"]
    assert allowed.exit == Exit.PASS


async def test_a_proven_difference_outweighs_errors(tmp_path):
    gaps = {"q0": 3.0}
    async with scripted_engine(answering(gaps, is_target=False)) as baseline, faulty_engine("status", gaps) as target:
        result = await run_command(
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 30),
            "--noise-floor", "40", "--retries", "0",
        )  # fmt: skip
    assert (result.exit, result.data["totals"].error) == (Exit.DIFFERENT, 3)


async def test_a_failing_tenth_request_is_asked_again_by_default(tmp_path):
    async with scripted_engine(answering({}, is_target=False)) as baseline, faulty_engine("status") as target:
        result = await run_command(
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 30),
            "--noise-floor", "1", "--retry-delay", "0",
        )  # fmt: skip
    assert (result.exit, result.data["totals"].equal) == (Exit.PASS, 30)
    assert any("sent again" in note for note in result.notes)


async def test_an_unreachable_engine_is_trouble_and_costs_no_journal(tmp_path):
    journal = tmp_path / "run.journal"
    journal.write_text("what an earlier run finished", encoding="utf-8")
    async with pair({}) as (baseline, _):
        with pytest.raises(Trouble, match="cannot be reached"):
            await run_command(
                "batch-compare", "--baseline", baseline, "--target", "http://127.0.0.1:9", "--dataset",
                dataset(tmp_path, 1), "--retries", "0", "--journal", str(journal),
            )  # fmt: skip
    assert journal.read_text(encoding="utf-8") == "what an earlier run finished"


async def test_a_target_without_numbers_where_the_baseline_has_them_is_real(tmp_path):
    def broken(body):
        told = answering({}, is_target=True)(body)
        told["choices"][0]["logprobs"]["content"][2]["logprob"] = None
        return told

    async with scripted_engine(answering({}, is_target=False)) as baseline, scripted_engine(broken) as target:
        result = await run_command(
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 2),
            "--noise-floor", "1",
        )  # fmt: skip
    assert result.exit == Exit.DIFFERENT
    assert result.data["samples"][0].tags == ["target-not-a-number"]


async def test_white_space_makes_texts_equal_only_when_told_and_is_recorded(tmp_path):
    def spaced(body):
        told = answering({}, is_target=True)(body)
        choice = told["choices"][0]
        choice["message"]["content"] = choice["message"]["content"].replace(" ", "\n ")
        choice["token_ids"][2] = 77
        return told

    async with scripted_engine(answering({}, is_target=False)) as baseline, scripted_engine(spaced) as target:
        arguments = ("batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 2))
        plain = await run_command(*arguments, "--noise-floor", "1")
        told = await run_command(*arguments, "--noise-floor", "1", "--normalize-whitespace")
    assert plain.exit == Exit.DIFFERENT
    assert (told.exit, told.data["samples"][0].tags) == (Exit.PASS, ["equal-by:normalize-whitespace"])
    assert told.data["settings"]["matching"] == ["normalize-whitespace"]


async def test_several_targets_get_a_report_each_and_the_worst_decides(tmp_path):
    async with pair({"q1": 3.0}) as (baseline, target):
        result = await run_command(
            "batch-compare", "--baseline", baseline, "--target", baseline, "--target", target, "--dataset",
            dataset(tmp_path, 3), "--noise-floor", "1", "--output", str(tmp_path / "r.json"),
        )  # fmt: skip
    assert result.exit == Exit.DIFFERENT
    assert [each["totals"].real for each in result.data["targets"]] == [0, 1]
    assert read_report(tmp_path / "r.1.json", "--input").samples[1].status == "real"


async def test_early_stop_asks_no_more_than_it_takes(tmp_path):
    gaps = {f"q{number}": 3.0 for number in range(0, 400, 2)}
    result = await compared(
        tmp_path,
        gaps,
        "--early-stop",
        "--fail-threshold",
        "0.1",
        "--concurrency",
        "2",
        "--no-force",
        count=400,
        noise="40",
    )
    assert (result.exit, result.data["gate"]["is_sequential"]) == (Exit.DIFFERENT, True)
    assert len(result.data["samples"]) < 60
    assert any("were not asked: stopped early" in note for note in result.notes)


async def test_duplicates_are_no_further_evidence(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text('{"prompt": "q"}\n{"prompt": "q"}\n{"prompt": "q", "max_tokens": 3}\n', encoding="utf-8")
    async with pair({}) as (baseline, target):
        arguments = ("batch-compare", "--baseline", baseline, "--target", target, "--dataset", str(path))
        result = await run_command(*arguments, "--noise-floor", "1", "--deduplicate")
    assert [sample.sample_id for sample in result.data["samples"]] == ["0", "2"]
    assert result.data["settings"]["selection"] == ["1 duplicate left out"]


async def test_a_rerun_asks_only_what_differed_and_can_be_put_into_the_report(tmp_path):
    await compared(tmp_path, {"q1": 3.0, "q4": 0.002}, "--output", str(tmp_path / "first.json"))
    alone = await compared(tmp_path, {}, "--rerun", str(tmp_path / "first.json"))
    assert [sample.sample_id for sample in alone.data["samples"]] == ["s1", "s4"]
    merged = await compared(tmp_path, {"q4": 0.002}, "--rerun", str(tmp_path / "first.json"), "--rerun-merge")
    statuses = ["equal"] * 10
    statuses[4] = "tie"
    assert [sample.status for sample in merged.data["samples"]] == statuses
    assert (merged.exit, merged.data["totals"].samples) == (Exit.PASS, 10)


async def test_costs_are_told_where_prices_are(tmp_path):
    result = await compared(tmp_path, {}, "--input-price", "2", "--output-price", "10", noise="0")
    # 20 answers to prompts of 3 tokens, 8 tokens each: 60 * 2 + 160 * 10 millionths.
    assert any("60 prompt tokens and 160 answer tokens: 0.00172 USD" in note for note in result.notes)


async def test_a_dry_run_asks_nobody(tmp_path):
    result = await run_command(
        "batch-compare", "--baseline", "http://127.0.0.1:9", "--target", "http://127.0.0.1:9", "--dataset",
        dataset(tmp_path, 7), "--dry-run",
    )  # fmt: skip
    assert (result.exit, result.data["dry_run"]["samples"], result.data["dry_run"]["requests"]) == (0, 7, 74)


async def test_all_files_are_written_and_say_the_same(tmp_path):
    names = {"output": "r.json", "csv": "r.csv", "junit": "r.xml", "markdown": "r.md", "prometheus": "r.prom"}
    flags = [part for flag, name in names.items() for part in (f"--{flag}", str(tmp_path / name))]
    await compared(tmp_path, {"q2": 3.0}, *flags)
    report = read_report(tmp_path / "r.json", "--input")
    assert [sample.status for sample in report.samples].count("real") == 1
    assert report.totals is not None
    assert report.totals.samples == 10
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 11
    assert 'failures="1"' in (tmp_path / "r.xml").read_text()
    assert 'status="real"} 1' in (tmp_path / "r.prom").read_text()
    assert "1 of 10 compared samples differ" in (tmp_path / "r.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names.values(), "prompts.jsonl"])


async def test_the_configuration_file_stands_in_for_flags(tmp_path):
    tables = {"batch": {"dataset": dataset(tmp_path, 4), "concurrency": 3, "fail_threshold": 0.9}}
    async with pair({"q0": 3.0}) as (baseline, target):
        settings = Settings(tables={"defaults": {"baseline": baseline, "target": target, "noise_floor": 1}, **tables})
        result = await run_command("batch-compare", settings=settings)
    assert result.data["settings"]["concurrency"] == 3
    assert (result.exit, result.data["gate"]["limit"]) == (Exit.PASS, 0.9)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--snapshot", "x", "--baseline", "http://a"), "--snapshot x: No such file"),
        (("--baseline", "http://a", "--target", "http://b", "--target", "http://b/"), "the same one twice"),
        (("--baseline", "http://a"), "--target is missing"),
        (("--target", "http://a"), "--baseline is missing"),
        (("--baseline", "http://a", "--target", "http://b", "--output", "/nowhere/r.json"), "no directory /nowhere"),
        (("--baseline", "http://a", "--target", "http://b", "--resume"), "--resume: which run?"),
    ],
)
async def test_mistakes_name_the_flag(tmp_path, arguments, told):
    with pytest.raises(Mistake) as raised:
        await run_command("batch-compare", "--dataset", dataset(tmp_path, 1), *arguments)
    assert told in str(raised.value)


async def test_resume_asks_again_only_for_errors_and_refuses_other_settings(tmp_path):
    journal = str(tmp_path / "run.journal")
    async with scripted_engine(answering({}, is_target=False)) as baseline, faulty_engine("status") as target:
        arguments = [
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 25),
            "--noise-floor", "1", "--retries", "0", "--journal", journal,
        ]  # fmt: skip
        first = await run_command(*arguments)
        assert (first.exit, first.data["totals"].error) == (Exit.INFRASTRUCTURE, 2)
        again = await run_command(*arguments, "--resume")
        assert (again.exit, again.data["totals"].equal) == (Exit.PASS, 25)
        assert any("23 samples were in the journal" in note for note in again.notes)
        with pytest.raises(Mistake, match=r"--resume [^ ]*: --max-tokens was 64 and is 9; give what it was"):
            await run_command(*arguments, "--resume", "--max-tokens", "9")
        dataset(tmp_path, 26)
        with pytest.raises(Mistake, match="--dataset has other content: its samples was"):
            await run_command(*arguments, "--resume")
    assert sorted(rows_in(Path(journal))) == sorted([*range(25), *_rows_that_failed(first)])


def _rows_that_failed(result):
    return [number for number, sample in enumerate(result.data["samples"]) if sample.status == "error"]


@pytest.mark.timeout(240)
def test_a_killed_run_goes_on_and_no_sample_is_lost_or_there_twice(tmp_path):
    count = 300
    path = dataset(tmp_path, count)
    report, journal = tmp_path / "r.json", tmp_path / "run.journal"
    command = [sys.executable, "-m", "ppd_acc.cli.main", "batch-compare", "--dataset", path, "--output", str(report)]
    command += ["--max-tokens", "2", "--noise-floor", "2", "--concurrency", "16", "--journal", str(journal)]
    simulate = [sys.executable, "-m", "ppd_proxy.cli.main", "simulate", "--role", "aggregated", "--port", "0"]
    with subprocess.Popen(simulate, stdout=subprocess.PIPE, text=True) as engine:
        try:
            url = engine.stdout.readline().split()[-1]
            command += ["--baseline", url, "--target", url]
            assert 100 <= _kill_at(command, journal, 100) < count
            with journal.open("ab") as file:
                file.write(b'{"row":299,"samples":[{"sample')  # torn off, as by a full disk
            finished = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
        finally:
            engine.terminate()
    assert finished.returncode == Exit.PASS, finished.stderr
    assert "samples were in the journal" in finished.stderr
    samples = json.loads(report.read_bytes())["samples"]
    assert [sample["sample_id"] for sample in samples] == [f"s{number}" for number in range(count)]
    assert sorted(rows_in(journal)) == list(range(count))


def _kill_at(command, journal, lines):
    """Kills it without warning when its journal has so many lines; how many it has then."""
    with subprocess.Popen(command) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"it ended with {process.returncode} before it could be killed")
        process.kill()
    return journal.read_bytes().count(b"\n")


async def test_what_differs_comes_with_the_line_that_explains_it(tmp_path):
    output = str(tmp_path / "a report.json")
    result = await compared(tmp_path, {"q1": 3.0}, "--output", output)
    line = next(each for each in lines_of(result) if each.startswith("next: "))
    assert shlex.split(line)[1:] == ["ppd-acc", "explain", "--report", output, "--sample", "s1"]
    healthy = await compared(tmp_path, {}, "--output", output)
    assert not any(each.startswith("next: ") for each in lines_of(healthy))


async def test_a_baseline_that_does_not_reproduce_itself_is_told_of(tmp_path):
    asked = 0

    def flaky(body):
        nonlocal asked
        asked += 1
        tokens = [1, 2, 3 + asked % 2]
        return chat_answer(tokens, [{token: -0.1, 9: -3.0} for token in tokens], text=str(tokens))

    async with scripted_engine(flaky) as baseline, scripted_engine(answering({}, is_target=True)) as target:
        result = await run_command(
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 4),
            "--noise-floor", "8", "--retry-delay", "0",
        )  # fmt: skip
    assert any("the baseline does not reproduce itself: 8 of 8 answers" in note for note in result.notes)
