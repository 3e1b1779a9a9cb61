"""Answers of the same content whose reasoning, tool calls or ends differ: compared, kept and shown."""

import csv
import json

import pytest
from tests.support.acc.answers import answer, both, call, entry
from tests.support.acc.commands import lines_of, run_command, run_line
from tests.support.acc.reports import dataset

from ppd_acc.ask.answers import Answer
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare_answers
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Exit
from ppd_accuracy.answers.flips import ReplayNoise

THINKING, OTHER_THINKING = "six times seven", "six plus thirty-six"
PARIS, ROME = call("weather", '{"city": "Paris", "days": 1}'), call("weather", '{"city": "Rome", "days": 1}')
NOT_PARIS = "Rome"

DIFFERENT = {
    "reasoning": (answer("42", reasoning=THINKING), answer("42", reasoning=OTHER_THINKING)),
    "reasoning_content": (answer("42", reasoning_content=THINKING), answer("42", reasoning_content=OTHER_THINKING)),
    "one without reasoning": (answer("42", reasoning=THINKING), answer("42")),
    "arguments": (answer("42", tool_calls=[PARIS]), answer("42", tool_calls=[ROME])),
    "arguments, no content": (answer(None, tool_calls=[PARIS]), answer(None, tool_calls=[ROME])),
    "another call": (answer("42", tool_calls=[PARIS]), answer("42", tool_calls=[call("time", "{}")])),
    "one without a call": (answer("42", tool_calls=[PARIS]), answer("42")),
    "a second call": (answer("42", tool_calls=[PARIS]), answer("42", tool_calls=[PARIS, ROME])),
    "no json": (answer("42", tool_calls=[call("f", '{"a')]), answer("42", tool_calls=[call("f", '{"b')])),
    "end": (answer("42", finish="stop"), answer("42", finish="length")),
    "named alike": (
        answer("42", [entry("x"), entry("42")], reasoning=THINKING),
        answer("42", [entry("x"), entry("42")], reasoning=OTHER_THINKING),
    ),
}
EQUAL = {
    "key order": (
        answer("42", tool_calls=[call("weather", '{"city": "Paris", "days": 1}', "a")]),
        answer("42", tool_calls=[call("weather", '{"days":1,"city":"Paris"}', "b")]),
    ),
    "both spellings": (answer("42", reasoning=THINKING), answer("42", reasoning_content=THINKING)),
}
COMMANDS = [
    ("compare-output", "--prompt hello"),
    ("compare-streaming", "--prompt hello"),
    ("fingerprint", ""),
    ("watch", "--prompt hello --interval 0 --max-iterations 1"),
    ("sensitivity", "--prompt 'hello you' --perturbations 2"),
]


async def run_on(pair, command, line):
    async with both(*pair) as (one, other):
        return await run_line(command, f"--baseline {one} --target {other} {line} --noise-floor 1 --retries 0")


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=[name for name, _ in COMMANDS])
async def test_other_parts_never_pass(command, line, pair):
    assert (await run_on(pair, command, line)).exit in (Exit.DIFFERENT, Exit.INCONCLUSIVE)


@pytest.mark.parametrize("pair", EQUAL.values(), ids=EQUAL)
@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=[name for name, _ in COMMANDS])
async def test_the_same_said_otherwise_passes(command, line, pair):
    assert (await run_on(pair, command, line)).exit == Exit.PASS


@pytest.mark.parametrize("name", ["reasoning", "arguments", "end"])
async def test_diagnose_calls_nothing_safe_to_deploy(name):
    result = await run_on(DIFFERENT[name], "diagnose", "--prompt hello --repeats 1 --no-cache-salt")
    assert result.exit in (Exit.DIFFERENT, Exit.INCONCLUSIVE)
    assert result.data["guide"][0]["applies"] is False


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("reasoning", [f"baseline reasoning: {THINKING!r}", f"target reasoning:   {OTHER_THINKING!r}"]),
        ("arguments", ["baseline tool calls: 'weather({\"city\":\"Paris\",\"days\":1})'"]),
        ("one without a call", ["target tool calls:   ''"]),
        ("end", ["baseline finish reason: 'stop'", "target finish reason:   'length'"]),
    ],
)
async def test_what_differs_is_what_is_shown(name, shown):
    result = await run_on(DIFFERENT[name], "compare-output", "--prompt hello")
    lines = list(lines_of(result))
    assert result.exit == Exit.DIFFERENT
    assert "'42'" not in "".join(lines)
    for line in shown:
        assert line in lines


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
async def test_a_batch_keeps_all_parts_in_its_report_and_journal(tmp_path, pair):
    arguments = ("--dataset", dataset(tmp_path, 1), "--noise-floor", "1", "--output", str(tmp_path / "r.json"))
    async with both(*pair) as (one, other):
        line = ("--baseline", one, "--target", other, *arguments, "--journal", str(tmp_path / "j"))
        result = await run_command("batch-compare", *line)
        resumed = await run_command("batch-compare", *line, "--resume")
    assert result.exit == resumed.exit
    assert result.exit in (Exit.DIFFERENT, Exit.INCONCLUSIVE)
    (sample,) = read_report(tmp_path / "r.json", "--report").samples
    for side, told in (("baseline", pair[0]), ("target", pair[1])):
        message = told["choices"][0]["message"]
        kept = getattr(sample, side)
        assert (kept.reasoning or None) == message.get("reasoning", message.get("reasoning_content"))
        assert kept.tool_calls == message.get("tool_calls", [])
        assert kept.finish_reason == told["choices"][0]["finish_reason"]
    assert sample.differences


async def test_rules_for_texts_forgive_neither_calls_nor_ends(tmp_path):
    async def batch(pair):
        async with both(*pair) as (one, other):
            result = await run_command(
                "batch-compare", "--baseline", one, "--target", other, "--dataset", dataset(tmp_path, 1),
                "--noise-floor", "0", "--ignore-case",
            )  # fmt: skip
        return result.data["samples"][0].status

    told = [answer(text, reasoning=thinking) for text, thinking in (("Yes", "So"), ("yes", "so"), ("yes", "no"))]
    assert await batch((told[0], told[1])) == "equal"
    assert await batch((told[0], told[2])) == "unclassified"
    assert await batch((answer("Yes", tool_calls=[PARIS]), answer("yes", tool_calls=[ROME]))) == "unclassified"
    assert await batch((answer("Yes", tool_calls=[PARIS]), answer("yes", tool_calls=[PARIS]))) == "equal"
    assert await batch((answer("Yes"), answer("yes", finish="length"))) == "unclassified"


async def a_report(tmp_path, name, file="r.json"):
    path = str(tmp_path / file)
    async with both(*DIFFERENT[name]) as (one, other):
        await run_command(
            "batch-compare", "--baseline", one, "--target", other, "--dataset", dataset(tmp_path, 1), "--noise-floor",
            "0", "--output", path, "--csv", path + ".csv", "--junit", path + ".xml", "--markdown", path + ".md",
        )  # fmt: skip
    return path


@pytest.mark.parametrize(("name", "told"), [("reasoning", OTHER_THINKING), ("arguments", NOT_PARIS)])
async def test_readers_of_reports_are_shown_it(tmp_path, name, told):
    path = await a_report(tmp_path, name)
    explained = await run_command("explain", "--report", path, "--sample", "s0")
    assert told in "\n".join(lines_of(explained))
    assert told in json.dumps(explained.data["said"])
    found = await run_command("filter", "--report", path, "--search", told)
    assert found.data["kept"] == ["s0"]
    rows = list(csv.DictReader((tmp_path / "r.json.csv").read_text(encoding="utf-8").splitlines()))
    column = "target_reasoning" if name == "reasoning" else "target_tool_calls"
    assert told in rows[0][column]
    for suffix in (".xml", ".md") if name == "arguments" else (".md",):
        assert told in (tmp_path / f"r.json{suffix}").read_text(encoding="utf-8")
    page = await run_command("report", "--input", path, "--output", str(tmp_path / "r.html"))
    assert page.exit == Exit.PASS
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert told.split()[-1] in html
    assert ("Reasoning: target" if name == "reasoning" else "Tool calls: target") in html


async def test_a_diff_of_two_runs_shows_another_call(tmp_path):
    old = await a_report(tmp_path, "one without a call", "old.json")
    new = await a_report(tmp_path, "arguments", "new.json")
    result = await run_command("diff", "--old", old, "--new", new)
    (row,) = result.data["changed"]
    assert [each["part"] for each in row["target_differences"]] == ["tool_calls"]
    assert NOT_PARIS in "\n".join(lines_of(result))


async def test_runs_whose_reasoning_differs_are_no_repetitions():
    thoughts = iter([THINKING, THINKING, OTHER_THINKING] * 4)
    async with both(lambda _: answer("42", reasoning=next(thoughts, THINKING)), answer("42")) as (url, _):
        result = await run_line(
            "reproducibility", f"--url {url} --prompt hello --runs 3 --noise-floor 0 --schedule sequential"
        )
    assert result.data["figures"][0]["differing"] == 1
    assert result.exit == Exit.INCONCLUSIVE


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": OTHER_THINKING},
        {"tool_calls": [ROME]},
        {"finish_reason": "length"},
    ],
)
def test_of_the_same_token_ids_any_other_part_is_real(fields):
    known = {"text": "42", "tokens": [1, 2], "unit": "tokens", "finish_reason": "stop", "reasoning": THINKING}
    sample = compare_answers("s", Question(), Answer(**known), Answer(**known | fields), ReplayNoise(), is_greedy=True)
    assert (sample.status, sample.tags) == ("real", ["same-tokens"])


def test_sampled_calls_may_differ_by_chance():
    one, other = (Answer(text="", tokens=[], unit="words", tool_calls=[each]) for each in (PARIS, ROME))
    for is_greedy, status in ((True, "real"), (False, "unclassified")):
        assert compare_answers("s", Question(), one, other, ReplayNoise(), is_greedy=is_greedy).status == status
