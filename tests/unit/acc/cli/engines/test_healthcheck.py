"""healthcheck: reachable, able, comparable; what an engine lacks is a note, what it gets wrong is not."""

from typing import Any

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.engines import chat_answer, scripted_engine

from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Exit, Mistake
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault

GONE = "http://127.0.0.1:1"


def sim(**facts: Any) -> EngineConfig:
    return EngineConfig(role="aggregated", **facts)


async def test_two_equal_engines_are_healthy():
    async with running_engine(sim()) as one, running_engine(sim()) as other:
        result = await run_command("healthcheck", one.url, "--url", f"{other.url}/v1/")
    first, second = result.data["endpoints"]
    assert (result.exit, result.notes) == (Exit.PASS, ())
    assert (first["model"], first["max_model_len"], first["version"], first["logprobs"]) == ("sim", 32768, "0.32.0", 20)
    assert first["has_token_ids"]
    assert first["has_prompt_logprobs"]
    assert first["tokenizer"] == second["tokenizer"]
    assert (first["tokens"], second["url"]) == (8, other.url)


async def test_an_engine_that_is_not_there_is_infrastructure():
    async with running_engine(sim()) as one:
        result = await run_command("healthcheck", one.url, GONE)
    assert result.exit == Exit.INFRASTRUCTURE
    assert [each["is_reachable"] for each in result.data["endpoints"]] == [True, False]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
async def test_an_engine_that_fails_is_reachable_but_not_healthy(path):
    async with running_engine(sim()) as one:
        one.faults.add(Fault(kind="status", path=path))
        result = await run_command("healthcheck", one.url)
    (found,) = result.data["endpoints"]
    assert (result.exit, found["is_reachable"], found["is_healthy"]) == (Exit.INFRASTRUCTURE, True, False)
    assert "500" in found["error"]


async def test_a_failure_that_passes_is_seen_unless_retries_are_asked_for():
    async with running_engine(sim()) as one:
        one.faults.add(Fault(kind="status", path="/v1/chat", times=1))
        first = await run_command("healthcheck", one.url)
        one.faults.add(Fault(kind="status", path="/v1/chat", times=1))
        again = await run_command("healthcheck", one.url, "--retries", "1", "--retry-delay", "0")
    assert (first.exit, again.exit) == (Exit.INFRASTRUCTURE, Exit.PASS)


async def test_an_engine_that_hangs_is_not_waited_for():
    async with running_engine(sim()) as one:
        one.faults.add(Fault(kind="hang", path="/v1/models"))
        result = await run_command("healthcheck", one.url, "--timeout", "0.2")
    assert result.exit == Exit.INFRASTRUCTURE


async def test_other_models_are_different():
    async with running_engine(sim()) as one, running_engine(sim(model_name="other")) as other:
        result = await run_command("healthcheck", one.url, other.url)
    assert result.exit == Exit.DIFFERENT
    assert any("model's name" in sentence for sentence in result.data["differences"])


async def test_other_lengths_are_worth_a_note_only():
    async with running_engine(sim()) as one, running_engine(sim(max_model_len=1024)) as other:
        result = await run_command("healthcheck", one.url, other.url)
    assert result.exit == Exit.PASS
    assert any("max_model_len differs" in note for note in result.notes)


async def test_another_rendering_of_the_prompt_is_different():
    def engine(prompt):
        return lambda body: chat_answer([5], [{5: -0.1, 6: -2.0}], text="a", prompt=prompt)

    async with scripted_engine(engine((1, 2))) as one, scripted_engine(engine((1, 3))) as other:
        result = await run_command("healthcheck", one, other)
    assert result.exit == Exit.DIFFERENT
    assert any("prompt's tokens" in sentence for sentence in result.data["differences"])


async def test_what_an_engine_lacks_is_a_note():
    def bare(body):
        return {"choices": [{"message": {"content": "some words"}, "finish_reason": "stop"}]}

    async with scripted_engine(bare) as url:
        result = await run_command("healthcheck", url)
    (found,) = result.data["endpoints"]
    assert (result.exit, found["logprobs"], found["has_token_ids"]) == (Exit.PASS, 0, False)
    assert found["has_prompt_logprobs"] is None
    assert len(result.notes) == 4


async def test_an_engine_that_cannot_score_says_so():
    def unable(body):
        if "prompt_logprobs" in body:
            return {"choices": [{"text": ""}]}
        return chat_answer([5], [{5: -0.1, 6: -2.0}], text="a")

    async with scripted_engine(unable) as url:
        result = await run_command("healthcheck", url)
    assert (result.exit, result.data["endpoints"][0]["has_prompt_logprobs"]) == (Exit.PASS, False)


async def test_a_logprob_that_is_no_number_is_not_healthy():
    def broken(body):
        answer = chat_answer([5, 6], [{5: -0.1}, {6: -0.1}], text="ab")
        answer["choices"][0]["logprobs"]["content"][1]["logprob"] = None
        return answer

    async with scripted_engine(broken) as url:
        result = await run_command("healthcheck", url)
    assert result.exit == Exit.INFRASTRUCTURE


async def test_an_engine_that_generates_nothing_is_not_healthy():
    async with scripted_engine(lambda body: chat_answer([], [], text="")) as url:
        result = await run_command("healthcheck", url)
    assert result.exit == Exit.INFRASTRUCTURE


async def test_urls_come_from_the_file_where_none_is_given():
    async with running_engine(sim()) as one:
        settings = Settings(tables={"defaults": {"baseline": one.url}})
        result = await run_command("healthcheck", settings=settings)
    assert result.data["endpoints"][0]["url"] == one.url
    with pytest.raises(Mistake, match="no URL"):
        await run_command("healthcheck")
