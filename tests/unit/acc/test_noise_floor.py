"""The noise floor of compare: how many answers are under way, and that all of them are measured."""

import asyncio

import pytest
from tests.support.acc_engines import chat_answer, scored_prompt, scripted_engine

from ppd_proxy.acc.compare import noise_floor
from ppd_proxy.acc.engines import EngineTrouble, Question, engines
from ppd_proxy.acc.flags import Access, Sampling

SAMPLING = Sampling(temperature=0.0, top_p=1.0, seed=1, max_tokens=2, top_k=2)


def access(**fields):
    plain = {"model": "m", "api_key": None, "headers": {}, "endpoint": "chat", "timeout_s": 10.0, "retries": 0}
    return Access(**(plain | {"retry_delay_s": 0.0, "concurrency": 4} | fields))


@pytest.mark.parametrize("count", [0, 1, 7])
async def test_every_answer_is_measured_and_reported(count):
    prompts, reported = [], []

    def answering(body):
        if "prompt_logprobs" in body:
            return scored_prompt(body["prompt"], {})
        prompts.append(body["messages"][0]["content"])
        return chat_answer([1, 2], [{1: -0.1, 2: -2.0}, {2: -0.1, 1: -2.0}], text="x")

    async with scripted_engine(answering) as url, engines(access(), url) as (engine,):
        floor = await noise_floor(
            engine, [Question(prompt="a"), Question(prompt="b")], SAMPLING, count, reported.append
        )
    assert (floor.answers, len(set(prompts)), reported) == (count, count, [*range(1, count + 1)])
    assert floor.is_scored == (count > 0)


async def test_a_huge_floor_has_few_answers_under_way():
    most = 0

    def report(done):
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))

    async with engines(access(timeout_s=1.0), "http://127.0.0.1:1") as (engine,):
        with pytest.raises(EngineTrouble):
            await noise_floor(engine, [Question(prompt="a")], SAMPLING, 1500, report)
    assert 0 < most < 1600
