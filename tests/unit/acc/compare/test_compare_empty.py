"""Answers that are empty on both sides: nothing was compared, which is no pass; some of them are counted."""

import itertools
import json
from collections import Counter

import pytest
from tests.support.acc.answers import answer, both, call
from tests.support.acc.commands import lines_of, run_command, run_line
from tests.support.acc.engines import chat_answer
from tests.support.acc.reports import dataset, equal, failed

from ppd_acc.ask.answers import Answer
from ppd_acc.ask.question import Question
from ppd_acc.batch.gating import Limits, gate_of, stopping
from ppd_acc.cli.experiments.sensitivity import classify
from ppd_acc.compare.compare import compare_answers
from ppd_acc.compare.pools import judge_together
from ppd_acc.data.report import Report, Sample
from ppd_acc.data.report_files import read_report
from ppd_acc.data.totals import totals_of
from ppd_acc.outcome import Exit
from ppd_acc.page.verdicts import headline
from ppd_acc.reports.matching import match, rate_of
from ppd_acc.reports.trends import hits_of
from ppd_acc.watch.rounds import gate
from ppd_accuracy.answers.flips import ReplayNoise, replay_noise_of

EMPTY = "every answer was empty: nothing was compared"
NOTHING = answer("")
END = chat_answer([2], [{2: -0.1, 5: -3.0}], text="")
END["choices"][0]["finish_reason"] = "stop"


def empty(sample_id="e"):
    return Sample(sample_id=sample_id, status="empty")


def everything(result):
    return "\n".join((*lines_of(result), *result.notes))


@pytest.mark.parametrize("told", [NOTHING, answer("", []), answer("", tool_calls=[]), END], ids=range(4))
@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("compare-output", "--prompt hello"),
        ("compare-streaming", "--prompt hello"),
        ("fingerprint", ""),
        ("watch", "--prompt hello --interval 0 --max-iterations 1"),
        ("watch", "--prompt hello --interval 0 --max-iterations 1 --fail-threshold 0.5"),
        ("sensitivity", "--prompt 'hello you' --perturbations 2"),
        ("bisect", "--prompt 'one two three four' --repeats 2"),
        ("reproducibility", "--prompt hello --runs 3"),
    ],
)
async def test_nothing_is_equal_to_nothing_and_passes_nowhere(command, line, told):
    async with both(told, told) as (one, other):
        result = await run_line(command, f"--baseline {one} --target {other} {line} --noise-floor 1 --retries 0")
    assert result.exit == Exit.INCONCLUSIVE
    if command != "sensitivity":
        assert EMPTY in everything(result)
    assert "equal" not in next(lines_of(result))


async def test_texts_by_hand_that_are_empty_are_not_equal():
    result = await run_command("compare-output", "--baseline-text", "", "--target-text", "")
    assert (result.exit, result.data["sample"]["status"]) == (Exit.INCONCLUSIVE, "empty")
    assert EMPTY in everything(result)


async def test_a_batch_of_empty_answers_has_an_outcome_of_its_own(tmp_path):
    files = {name: str(tmp_path / f"r.{name}") for name in ("csv", "junit", "markdown", "prometheus", "output")}
    flags = [word for name, path in files.items() for word in (f"--{name}", path)]
    async with both(NOTHING, NOTHING) as (one, other):
        result = await run_command(
            "batch-compare", "--baseline", one, "--target", other, "--dataset", dataset(tmp_path, 3),
            "--noise-floor", "1", *flags,
        )  # fmt: skip
    assert (result.exit, result.data["gate"]["outcome"], result.data["totals"].empty) == (Exit.INCONCLUSIVE, "empty", 3)
    assert EMPTY in everything(result)
    assert 'status="empty"} 3' in (tmp_path / "r.prometheus").read_text()
    assert 'outcome="empty"} 1' in (tmp_path / "r.prometheus").read_text()
    assert 'skipped="3"' in (tmp_path / "r.junit").read_text()
    assert "batch-compare: empty" in (tmp_path / "r.markdown").read_text()
    page = await run_command("report", "--input", files["output"], "--output", str(tmp_path / "r.html"))
    assert page.exit == Exit.PASS
    assert "Every answer was empty" in (tmp_path / "r.html").read_text()
    explained = await run_command("explain", "--report", files["output"], "--sample", "s0")
    assert EMPTY in everything(explained)


async def test_some_empty_answers_are_counted_and_said(tmp_path):
    def telling(body):
        return NOTHING if body["messages"][-1]["content"].endswith("1") else answer("one two")

    async with both(telling, telling) as (one, other):
        batch = await run_command(
            "batch-compare", "--baseline", one, "--target", other, "--dataset", dataset(tmp_path, 3),
            "--noise-floor", "0",
        )  # fmt: skip
        watch = await run_line(
            "watch",
            f"--baseline {one} --target {other} --prompt a --prompt 1 --interval 0 --max-iterations 1 --noise-floor 0",
        )
    assert (batch.exit, batch.data["totals"].compared, batch.data["totals"].empty) == (Exit.PASS, 2, 1)
    assert watch.exit == Exit.PASS
    for result in (batch, watch):
        assert "1 pair of answers was empty" in everything(result)
    assert watch.data["comparisons"] == {"equal": 1, "empty": 1}


async def test_diagnose_calls_nothing_clean_where_answers_are_empty():
    """The health check's question is answered, the others are not."""

    def telling(body):
        return answer("one two") if "quick brown" in str(body["messages"]) else NOTHING

    async with both(telling, telling) as (one, other):
        line = f"--baseline {one} --target {other} --prompt hello --repeats 2 --noise-floor 1 --no-cache-salt"
        result = await run_line("diagnose", line)
    assert result.exit == Exit.INCONCLUSIVE
    assert result.data["guide"][0]["applies"] is False
    assert f"P-only: first token: {EMPTY}" in everything(result)
    assert "2 pairs of answers were empty" in everything(result)


async def test_an_engine_that_never_answers_anything_is_not_diagnosed():
    async with both(NOTHING, NOTHING) as (one, other):
        result = await run_line("diagnose", f"--baseline {one} --target {other} --prompt hello --retries 0")
    assert result.exit == Exit.INFRASTRUCTURE
    assert "generated no token" in everything(result)


async def test_a_fingerprint_of_nothing_is_none():
    async with both(NOTHING, NOTHING) as (one, _):
        result = await run_line("fingerprint", f"--baseline {one}")
    assert result.exit == Exit.INCONCLUSIVE
    assert "the digests say nothing" in everything(result)


def judged(one, other, **fields):
    known = {"text": "", "tokens": [], "unit": "tokens", "finish_reason": "stop", **fields}
    return compare_answers(
        "s", Question(), *(Answer(**known | each) for each in (one, other)), ReplayNoise(), is_greedy=True
    ).status


@pytest.mark.parametrize(
    ("one", "other", "status"),
    [
        ({}, {}, "empty"),
        ({"tokens": [2]}, {"tokens": [2]}, "empty"),
        ({}, {"finish_reason": "length"}, "empty"),
        ({"tokens": [2]}, {"tokens": [3]}, "unclassified"),
        ({"tokens": [7], "finish_reason": "length"}, {"tokens": [7], "finish_reason": "length"}, "equal"),
        ({"tokens": [7, 2]}, {"tokens": [7, 2]}, "equal"),
        ({"reasoning": "a", "unit": "words"}, {"reasoning": "a", "unit": "words"}, "equal"),
        ({"tool_calls": [call("f", "{}")]}, {"tool_calls": [call("f", "{}")]}, "equal"),
        ({}, {"text": "a", "tokens": [5]}, "real"),
        ({"tokens": ["", ""]}, {"tokens": ["", ""]}, "empty"),
    ],
)
def test_empty_is_what_says_nothing_on_both_sides(one, other, status):
    assert judged(one, other) == judged(other, one) == status


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        (["empty", "empty"], "empty"),
        (["empty", "equal"], "pass"),
        (["empty", "real"], "fail"),
        (["empty", "error"], "partial"),
        (["error"], "partial"),
        (["empty", "unclassified"], "inconclusive"),
    ],
)
@pytest.mark.parametrize("rate", [None, 0.99])
def test_a_gate_is_of_what_was_compared(statuses, outcome, rate):
    totals = totals_of(statuses, 0.95)
    judged = gate_of(totals, Limits(rate=rate, error_share=0.0, confidence=0.95))
    if rate is None or outcome in ("empty", "partial"):
        assert judged.outcome == outcome
    assert totals.compared == sum(status not in ("empty", "error") for status in statuses)
    assert judged.reason.count("empty") == (1 if "empty" in statuses else 0)


def test_empty_answers_bring_no_early_stop_nearer():
    limits = Limits(rate=0.5, error_share=0.0, confidence=0.95, is_sequential=True)
    assert stopping({"equal": 100}, limits).outcome == "pass"
    assert stopping({"empty": 100, "equal": 1}, limits) is None
    assert gate_of(totals_of(["empty"] * 100, 0.95), limits).outcome == "empty"


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_window_of_empty_answers_passes_no_watch(threshold):
    assert gate(Counter(empty=100), threshold, 0.95).outcome == "inconclusive"
    assert gate(Counter(empty=100, equal=100), threshold, 0.95).outcome == "pass"
    assert "100 pairs of answers were empty" in gate(Counter(empty=100, equal=100), threshold, 0.95).reason


def test_what_a_watch_cannot_classify_counts_against_passing():
    assert gate(Counter(unclassified=100), 0.5, 0.95).outcome == "inconclusive"
    assert gate(Counter(unclassified=10, equal=990), 0.5, 0.95).outcome == "pass"


def test_a_pool_of_empty_answers_is_none():
    verdict = judge_together([empty(), empty()], replay_noise_of([]), alpha=0.01)
    assert (verdict.exit, verdict.reasons, verdict.is_empty, verdict.compared) == (
        Exit.INCONCLUSIVE, (EMPTY,), True, 0,
    )  # fmt: skip
    some = judge_together([empty(), equal("a")], replay_noise_of([]), alpha=0.01)
    assert (some.exit, some.is_empty) == (Exit.PASS, False)
    assert "1 pair of answers was empty" in some.reasons[0]


def test_empty_answers_are_in_no_rate_pair_or_trend():
    samples = [empty("a"), equal("b"), failed("c")]
    rate = rate_of(samples, 0.95, count_ties=True)
    assert (rate.compared, rate.errors, rate.empty) == (1, 1, 1)
    report = Report(samples=samples)
    assert match(report, Report(samples=[equal("a"), equal("b"), equal("c")])).not_compared == ("a", "c")
    assert hits_of({"a": "empty", "b": "equal", "c": "error"}, ("real",)) == {"b": False}
    counts = {"equal": 0, "tie": 0, "real": 0, "unclassified": 0, "error": 0, "empty": 3}
    assert classify(counts, is_original_real=False)[1] == Exit.INCONCLUSIVE


def test_a_page_of_empty_answers_says_so():
    report = Report(samples=[empty("a"), empty("b")])
    told = headline(report, totals_of(each.status for each in report.samples))
    assert (told.outcome, told.told) == ("empty", "Every answer was empty: nothing was compared")


def test_saved_runs_of_empty_answers_are_read_as_such(tmp_path):
    ours = [{"sample_id": "0", "status": "equal", "unit": "words"}]
    theirs = [{"sample_id": "0", "baseline_output": "", "target_output": "", "exact_match": True}]
    for number, told in enumerate(
        ({"kind": "batch-compare", "version": 1, "samples": ours}, {"schema_version": 2, "results": theirs})
    ):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(told))
        assert [sample.status for sample in read_report(path, "--report").samples] == ["empty"]


async def test_half_of_the_runs_empty_is_a_difference():
    texts = itertools.cycle(["one two", ""])
    async with both(lambda _: answer(next(texts)), NOTHING) as (url, _):
        result = await run_line(
            "reproducibility", f"--url {url} --prompt hello --runs 4 --noise-floor 0 --schedule sequential"
        )
    assert result.exit == Exit.INCONCLUSIVE
    assert result.data["figures"][0]["differing"] == 2
