import re

import pytest
from tests.support.acc.commands import lines_of, run_line
from tests.support.acc.engines import engine_config, front

from ppd_acc.outcome import Exit, Trouble
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig


async def compared(baseline, target, line=""):
    return await run_line(
        "compare-streaming", f"--baseline {baseline.url} --target {target.url} --prompt 'A story' --retries 0 {line}"
    )


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
async def test_equal_engines_stream_the_same(endpoint):
    async with (
        running_engine(engine_config(reasoning_tokens=3)) as one,
        running_engine(engine_config(reasoning_tokens=3)) as other,
    ):
        result = await compared(one, other, f"--endpoint {endpoint} --max-tokens 20")
    assert result.exit == Exit.PASS
    assert [each["outcome"] for each in result.data["findings"]] == ["equal"] * 5
    assert result.data["streams"]["target"]["tokens"] == 20
    assert result.data["streams"]["target"]["reasoning_tokens"] == (2 if endpoint == "chat" else 0)
    assert "timing" not in result.data


async def test_a_target_with_other_weights_is_different():
    async with running_engine(engine_config()) as one, running_engine(engine_config(engine_noise_nats=3.0)) as other:
        result = await compared(one, other)
    assert result.exit == Exit.DIFFERENT
    first = result.data["findings"][0]
    assert (first["check"], first["outcome"]) == ("tokens of both streams", "different")
    assert result.data["samples"]["streams"]["flip"]["position"] >= 0
    assert any("margins" in line for line in lines_of(result))


async def test_a_difference_without_a_noise_floor_is_inconclusive():
    async with running_engine(engine_config()) as one, running_engine(engine_config(engine_noise_nats=3.0)) as other:
        result = await compared(one, other, "--noise-floor 0")
    assert result.exit == Exit.INCONCLUSIVE


async def test_a_stream_that_is_unlike_the_whole_answer_is_different():
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        other.faults.add(Fault(kind="corrupt", path="/v1/chat", nth=1))
        result = await compared(one, other)
    assert result.exit == Exit.DIFFERENT
    outcomes = {each["check"]: each["outcome"] for each in result.data["findings"]}
    assert outcomes["target, streamed against whole"] == "different"
    assert outcomes["baseline, streamed against whole"] == "equal"


def without_done(body):
    return body.replace(b"data: [DONE]\n\n", b"")


def without_usage(body):
    return re.sub(rb'data: [^\n]*"choices":\[\],"usage"[^\n]*\n\n', b"", body)


def with_other_text(body):
    """In the stream alone: a detokenizer that loses a space."""
    return re.sub(rb'"content":" ', b'"content":"', body, count=1) if body.startswith(b"data:") else body


def with_double_spaces(body):
    return re.sub(rb'"content":" ', b'"content":"  ', body, count=1) if body.startswith(b"data:") else body


def with_other_end(body):
    return body.replace(b'"finish_reason":"length"', b'"finish_reason":"stop"') if body.startswith(b"data:") else body


@pytest.mark.parametrize(
    ("edit", "check", "detail"),
    [
        (without_done, "end of the stream", "[DONE] and no [DONE]"),
        (without_usage, "usage", "not told"),
        (with_other_text, "target, streamed against whole", "the text is"),
        (with_other_end, "target, streamed against whole", "the finish reason is"),
    ],
)
async def test_what_a_stream_says_beside_its_tokens_is_compared(edit, check, detail):
    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, edit=edit) as other,
    ):
        line = f"--baseline {one.url} --target {other} --prompt 'A story' --retries 0 --max-tokens 12"
        result = await run_line("compare-streaming", line)
    assert result.exit == Exit.DIFFERENT
    findings = {each["check"]: each for each in result.data["findings"]}
    assert findings[check]["outcome"] == "different"
    assert detail in findings[check]["detail"]


async def test_white_space_makes_no_difference_when_told_so():
    async with (
        running_engine(engine_config()) as one,
        front(one.url, one.url, lambda body, under_way: False, edit=with_double_spaces) as other,
    ):
        line = f"--baseline {one.url} --target {other} --prompt 'A story' --max-tokens 12"
        plain = await run_line("compare-streaming", line)
        told = await run_line("compare-streaming", f"{line} --normalize-whitespace")
    assert (plain.exit, told.exit) == (Exit.DIFFERENT, Exit.PASS)
    assert told.data["matching"] == ["normalize-whitespace"]


async def test_timing_gives_percentiles_of_both_engines():
    slow = TimingConfig(prefill_fixed_ms=30, decode_ms_per_token=2)
    async with running_engine(engine_config()) as one, running_engine(engine_config(timing=slow)) as other:
        result = await compared(one, other, "--timing --max-tokens 30")
    assert result.exit == Exit.PASS
    told = result.data["timing"]["target"]
    assert told["first_token_ms"] >= 30
    assert told["inter_token_ms"]["count"] == 29
    assert told["inter_token_ms"]["mean"] >= 1.5
    assert told["inter_token_ms"]["p50"]["interval"]["low"] <= told["inter_token_ms"]["p50"]["value"]
    assert told["inter_token_ms"]["p99"]["interval"] is None
    assert len(told["chunks_ms"]) == 30
    assert any("target: between tokens" in line for line in lines_of(result))


async def test_a_broken_stream_is_trouble_of_its_side():
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        other.faults.add(Fault(kind="truncate_after", path="/v1/chat", chunks=4))
        with pytest.raises(Trouble, match=r"--target: .*without a finish reason"):
            await compared(one, other)
