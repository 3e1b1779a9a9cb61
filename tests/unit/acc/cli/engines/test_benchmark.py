import re

import pytest
from tests.support.acc.commands import lines_of, run_line
from tests.support.acc.engines import engine_config

from ppd_acc.outcome import Exit, Mistake, Trouble
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig


async def test_times_and_throughput_are_of_the_measured_requests():
    timing = TimingConfig(prefill_fixed_ms=20, decode_ms_per_token=2)
    async with running_engine(engine_config(timing=timing)) as sim:
        result = await run_line("benchmark", f"{sim.url} --requests 8 --concurrency 4 --max-tokens 10 --ignore-eos")
        asked = [each for each in sim.requests if each.path == "/v1/chat/completions"]
    data = result.data
    assert result.exit == Exit.PASS
    assert len(asked) == 9  # one to warm up
    assert (data["completed"], data["failed"], data["output_tokens"]) == (8, 0, 80)
    assert data["counted_in"] == ["tokens"]
    assert data["first_token_ms"]["min"] >= 20
    assert data["inter_token_ms"]["count"] == 72
    assert data["total_ms"]["min"] >= 38
    assert data["per_output_token_ms"]["mean"] == pytest.approx(data["inter_token_ms"]["mean"])
    # Prefills run one after the other and so take 160 ms, but four requests are under way at once.
    assert 0.16 <= data["wall_s"] < sum(data["latencies_ms"]) / 1000
    assert data["output_tokens_per_s"] == pytest.approx(80 / data["wall_s"])
    assert any("whole answer" in line for line in lines_of(result))


@pytest.mark.parametrize(("flag", "distinct"), [("", 4), ("--same-prompt", 1)])
async def test_prompts_hit_no_prefix_cache_unless_the_same_one_is_asked_for(flag, distinct):
    async with running_engine(engine_config()) as sim:
        long = " ".join(["word"] * 200)
        result = await run_line("benchmark", f"--url {sim.url} --requests 3 --max-tokens 2 --prompt '{long}' {flag}")
        prompts = {str(each.body["messages"]) for each in sim.requests}
        (hits,) = re.findall(rb"^vllm:prefix_cache_hits_total\{.*\} (.*)$", sim.core.metrics.exposition(), re.MULTILINE)
    assert len(prompts) == distinct
    assert (float(hits) > 0) == (distinct == 1)
    assert len(result.notes) == (distinct == 1)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize(("flag", "asked"), [("", False), ("--top-k 2", True)])
async def test_logprobs_are_left_out_unless_they_are_asked_for(endpoint, flag, asked):
    async with running_engine(engine_config()) as sim:
        result = await run_line("benchmark", f"{sim.url} --requests 2 --max-tokens 3 --endpoint {endpoint} {flag}")
        bodies = [each.body for each in sim.requests]
    assert all(bool(body.get("logprobs")) == asked for body in bodies)
    assert (result.data["output_tokens"], result.data["counted_in"]) == (6, ["tokens"])


async def test_a_rate_limit_spaces_the_requests():
    async with running_engine(engine_config()) as sim:
        result = await run_line("benchmark", f"{sim.url} --requests 6 --concurrency 6 --rate-limit 100 --max-tokens 1")
    assert result.data["wall_s"] >= 0.05


async def test_requests_that_fail_are_counted_and_make_the_result_partial():
    async with running_engine(engine_config()) as sim:
        sim.faults.add(Fault(kind="status", path="/v1/chat", nth=3), Fault(kind="die_after", path="/v1/chat", nth=5))
        result = await run_line("benchmark", f"{sim.url} --requests 6 --max-tokens 3")
    assert result.exit == Exit.INFRASTRUCTURE
    assert (result.data["completed"], result.data["failed"]) == (4, 2)
    assert result.data["failures"] == {"status_500": 1, "broken": 1}


async def test_nothing_answered_is_told_without_numbers():
    async with running_engine(engine_config()) as sim:
        sim.faults.add(Fault(kind="status", path="/v1/chat"))
        result = await run_line("benchmark", f"{sim.url} --requests 2 --warmup 0")
    assert result.exit == Exit.INFRASTRUCTURE
    assert result.data["completed"] == 0
    assert result.data["total_ms"] == {"count": 0}
    assert any("2 failed" in line for line in lines_of(result))


async def test_an_engine_that_cannot_be_reached_is_trouble():
    with pytest.raises(Trouble, match="cannot be reached"):
        await run_line("benchmark", "http://127.0.0.1:9 --requests 2")


@pytest.mark.parametrize("line", ["", "http://a:1 --url http://b:1"])
async def test_one_url_is_needed(line):
    with pytest.raises(Mistake, match="URL"):
        await run_line("benchmark", line)
