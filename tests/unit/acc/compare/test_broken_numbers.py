import re
import shlex

import pytest
from tests.support.acc.commands import lines_of, run_command, run_line
from tests.support.acc.engines import engine_config, front

from ppd_acc.outcome import Exit
from ppd_sim.engine import running_engine

WORDS = " ".join(["word"] * 20)


def without_a_number(body):
    """A logprob in the middle of the answer is null, as JSON has it for NaN."""
    numbers = list(re.finditer(rb'"logprob":-?[0-9.e-]+|(?<="token_logprobs":\[)-?[0-9.e-]+', body))
    if not numbers:
        return body
    found = numbers[0]
    null = b'"logprob":null' if found[0].startswith(b'"') else b"null"
    return body[: found.start()] + null + body[found.end() :]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("compare-streaming", "--prompt 'A story'"),
        ("sensitivity", "--prompt 'A story' --perturbations 2"),
        ("bisect", f"--prompt '{WORDS}' --repeats 2"),
        ("bisect", f"--prompt '{WORDS}' --repeats 2 --over concurrency --max-level 2"),
        ("watch", "--prompt 'A story' --interval 0 --max-iterations 2"),
    ],
)
@pytest.mark.parametrize(("side", "expected"), [("target", Exit.DIFFERENT), ("baseline", Exit.INCONCLUSIVE)])
async def test_a_logprob_that_is_no_number_never_passes(command, line, side, expected):
    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, edit=without_a_number) as broken,
    ):
        urls = {"baseline": one.url, "target": one.url} | {side: broken}
        told = " ".join(f"--{name} {url}" for name, url in urls.items())
        result = await run_line(command, f"{told} {line} --max-tokens 6 --retries 0")
    assert result.exit == expected


async def test_a_run_without_a_number_is_not_equal_to_the_others():
    bodies = []

    def third(body):
        bodies.append(body)
        return without_a_number(body) if len(bodies) == 4 else body  # after the list of models

    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, edit=third) as broken,
    ):
        result = await run_line("reproducibility", f"--url {broken} --prompt 'A story' --runs 4 --max-tokens 4")
    assert result.exit == Exit.DIFFERENT
    assert result.data["figures"][0]["real"] == 1


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("compare-output", "--prompt 'A story'"),
        ("compare-logprobs", "--prompt 'A story'"),
        ("sensitivity", "--prompt 'A story' --perturbations 2"),
        ("watch", "--prompt 'A story' --interval 0 --max-iterations 2"),
    ],
)
@pytest.mark.parametrize(("side", "expected"), [("target", Exit.DIFFERENT), ("baseline", Exit.INCONCLUSIVE)])
async def test_an_engine_that_refuses_to_write_nan_is_asked_for_tokens_and_never_passes(command, line, side, expected):
    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, computes_nan=True) as broken,
    ):
        urls = {"baseline": one.url, "target": one.url} | {side: broken}
        told = " ".join(f"--{name} {url}" for name, url in urls.items())
        result = await run_line(command, f"{told} {line} --max-tokens 6 --retries 0")
    assert result.exit == expected


async def test_a_batch_counts_an_answer_with_nan_as_a_real_difference(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "A story"}\n{"prompt": "A song"}\n')
    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, computes_nan=True) as broken,
    ):
        line = f"--baseline {one.url} --target {broken} --dataset {tmp_path}/rows.jsonl --max-tokens 6 --retries 0"
        result = await run_command("batch-compare", *shlex.split(line), at=tmp_path)
    assert result.exit == Exit.DIFFERENT
    assert result.data["totals"].real == 2


async def test_diagnose_goes_on_where_the_target_computes_nan():
    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, computes_nan=True) as broken,
    ):
        nodes = f"--prefill-node {one.url} --decode-node {one.url}"
        line = f"--baseline {one.url} --target {broken} {nodes} --prompt 'A story' --max-tokens 24 --noise-floor 4"
        result = await run_line("diagnose", line)
    assert {each["stage"]: each["state"] for each in result.data["stages"]}["pd"] == "broken"
    assert (result.exit, result.data["located"]["place"]) == (Exit.DIFFERENT, "transfer")
    assert "logprobs are missing or no numbers" in "".join(result.notes)


async def test_a_headline_says_that_equal_tokens_have_logprobs_that_are_no_numbers():
    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, edit=without_a_number) as broken,
    ):
        line = f"--baseline {one.url} --target {broken} --prompt 'A story' --max-tokens 6"
        result = await run_line("compare-output", line)
    assert next(lines_of(result)) == "real: the same 6 tokens, but 1 logprob is no number"
    assert result.data["sample"]["tags"] == ["target-not-a-number"]
