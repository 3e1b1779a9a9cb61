"""How a batch asks: who at the same time, how many at once, how fast, under which names; and what it keeps."""

import asyncio
import re

import pytest
from aiohttp import web
from tests.support.acc.commands import run_command
from tests.support.acc.engines import AT, TOKENS, answering, engine_of, pair, scripted_engine
from tests.support.acc.reports import dataset

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.question import Question
from ppd_acc.batch.batch import Batch, Rules
from ppd_acc.data.datasets import Row
from ppd_acc.outcome import Exit
from ppd_accuracy.answers.flips import ReplayNoise


async def run_on(tmp_path, baseline, target, *arguments, count=6, noise="0"):
    return await run_command(
        "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, count),
        "--noise-floor", noise, *arguments,
    )  # fmt: skip


class Seen:
    """Requests as an engine sees them."""

    def __init__(self):
        self.running = self.most = 0
        self.at = []
        self.ids = []

    async def generate(self, request):
        self.at.append(asyncio.get_running_loop().time())
        self.ids.append(request.headers.get("x-request-id"))
        self.running += 1
        self.most = max(self.most, self.running)
        body = await request.json()
        await asyncio.sleep(0)
        self.running -= 1
        return web.json_response(dict(answering({}, is_target=False)(body)))


async def test_both_engines_are_asked_at_the_same_time(tmp_path):
    arrived = {"baseline": asyncio.Event(), "target": asyncio.Event()}

    def waiting(mine, other):
        async def generate(request):
            arrived[mine].set()
            await arrived[other].wait()  # for ever, if the other one were asked afterwards
            return web.json_response(dict(answering({}, is_target=False)(await request.json())))

        return generate

    async with (
        engine_of(waiting("baseline", "target")) as baseline,
        engine_of(waiting("target", "baseline")) as target,
    ):
        result = await run_on(tmp_path, baseline, target, "--concurrency", "1", "--timeout", "20", "--retries", "0")
    assert (result.exit, result.data["totals"].equal) == (Exit.PASS, 6)


async def test_each_engine_has_its_own_limit(tmp_path):
    ours, theirs = Seen(), Seen()
    async with engine_of(ours.generate) as baseline, engine_of(theirs.generate) as target:
        await run_on(tmp_path, baseline, target, "--concurrency", "3", count=40)
    assert (len(ours.at), len(theirs.at)) == (40, 40)
    assert max(ours.most, theirs.most) <= 3


async def test_requests_are_no_faster_than_allowed(tmp_path):
    ours, theirs = Seen(), Seen()
    async with engine_of(ours.generate) as baseline, engine_of(theirs.generate) as target:
        await run_on(tmp_path, baseline, target, "--rate-limit", "40", count=6)
    for seen in (ours, theirs):
        assert seen.at[-1] - seen.at[0] >= 5 / 40 - 0.02


async def test_every_request_has_a_name_of_its_own_that_a_header_can_hold(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text('{"id": "a\\nb: é", "prompt": "q"}\n{"id": "a_b_", "prompt": "q"}\n', encoding="utf-8")
    seen = Seen()
    async with engine_of(seen.generate) as url:
        arguments = ("batch-compare", "--baseline", url, "--target", url, "--dataset", str(path), "--noise-floor", "0")
        await run_command(*arguments)
        assert len(set(seen.ids)) == 4
        assert re.fullmatch(r"ppd-acc-[0-9a-f]{8}-baseline-0-a_b:_", min(seen.ids))
        seen.ids.clear()
        await run_command(*arguments, "--no-request-id")
        assert seen.ids == [None] * 4


async def test_fields_of_a_row_are_sent_and_win_over_flags(tmp_path):
    bodies = []

    async def generate(request):
        bodies.append(await request.json())
        return web.json_response(dict(answering({}, is_target=False)(bodies[-1])))

    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "q", "max_tokens": 3, "stop": ["x"], "topic": "sea"}\n', encoding="utf-8")
    async with engine_of(generate) as url:
        result = await run_command(
            "batch-compare", "--baseline", url, "--target", url, "--dataset", str(path), "--noise-floor", "0",
            "--max-tokens", "9",
        )  # fmt: skip
    assert [(body["max_tokens"], body["stop"], body.get("topic")) for body in bodies] == [(3, ["x"], None)] * 2
    assert result.data["samples"][0].metadata == {"topic": "sea"}


@pytest.mark.parametrize(("keep", "lists"), [("all", [8, 8]), ("near", [0, 8]), ("none", [0, 0])])
async def test_likeliest_tokens_are_kept_as_told(tmp_path, keep, lists):
    async with pair({"q1": 3.0}) as (baseline, target):
        result = await run_on(tmp_path, baseline, target, "--keep-tops", keep, count=2, noise="1")
    assert [len(sample.baseline.tops) for sample in result.data["samples"]] == lists
    if lists[1]:
        assert result.data["samples"][1].baseline.tops[AT] == {str(TOKENS[AT]): -0.4, "99": -3.4}


async def test_an_engine_without_tokens_is_compared_by_words_and_the_run_says_so(tmp_path):
    def plain(text):
        def answer(body):
            told = f"{text} two" if body["messages"][-1]["content"] == "q1" else "one two"
            return {"choices": [{"message": {"role": "assistant", "content": told}, "finish_reason": "stop"}]}

        return answer

    async with scripted_engine(plain("one")) as baseline, scripted_engine(plain("uno")) as target:
        result = await run_on(tmp_path, baseline, target, count=3, noise="1")
    assert result.exit == Exit.INCONCLUSIVE
    assert result.data["samples"][1].unit == "words"
    assert any("3 samples were compared by words" in note for note in result.notes)


async def test_ids_are_not_held_against_names(tmp_path):
    def named(body):
        told = answering({}, is_target=True)(body)
        del told["choices"][0]["token_ids"]
        for place, entry in enumerate(told["choices"][0]["logprobs"]["content"]):
            entry["token"] = f" {TOKENS[place]}"
        return told

    async with scripted_engine(answering({}, is_target=False)) as baseline, scripted_engine(named) as target:
        result = await run_on(tmp_path, baseline, target, count=1)
    assert (result.exit, result.data["samples"][0].unit) == (Exit.PASS, "words")


async def test_a_run_that_stands_still_is_heard_of():
    heard = asyncio.Event()
    told = []

    class Slow:
        async def answer(self, number, row):
            await heard.wait()
            return Answer(text="a", tokens=["a"], unit="words")

    def progress(done, extra):
        told.append((done, extra))
        heard.set()

    rules = Rules(sampling=Sampling(temperature=0, top_p=1, seed=1, max_tokens=1, top_k=1), floor=ReplayNoise())
    rows = [Row(sample_id="0", question=Question(prompt="q"), line=1)]
    batch = Batch(rows, Slow(), [Slow()], rules, progress=progress, beat_s=0.001)
    await batch.run(4)
    assert told[0] == (0, "; 0 real, 0 tie, 0 unclassified, 0 error")
    assert told[-1][0] == 1
