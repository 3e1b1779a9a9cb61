"""Both legs must have rendered the same prompt, or the decode engine takes KV that is not its own, with status 200."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, scripted_engine, until, user

from ppd_core.policy.prompt_pairs import LIMIT
from ppd_proxy.config.sections import Engines, Limits, Shadow
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine

PARAMS = {
    "do_remote_prefill": True, "remote_engine_id": "p", "remote_request_id": "r", "remote_block_ids": [[1]],
    "remote_host": "h", "remote_port": 1,
}  # fmt: skip
FORMATS = pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
CHECKS = 'ppd_prompt_count_checks_total{{result="{}"}}'


class Counting:
    """One engine; says the next of `counts` as its prompt tokens, the last one for ever. None: it gives no usage."""

    def __init__(self, *counts, style="separate", pieces=("one ", "two ", "three")):
        self.counts = list(counts)
        self.style = style
        self.pieces = pieces
        self.bodies = []

    def _usage(self):
        count = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        return {} if count is None else {"usage": {"prompt_tokens": count, "completion_tokens": 3}}

    async def answer(self, request):
        sent = await request.json()
        self.bodies.append(sent)
        usage = self._usage()
        id_ = f"cmpl-{request.headers['x-request-id']}"
        if not sent.get("stream"):
            is_prefill = sent.get("kv_transfer_params", {}).get("do_remote_decode")
            handed = {"kv_transfer_params": PARAMS}
            text = "".join(self.pieces)
            choice = {"index": 0, "text": text, "message": {"content": text}, "finish_reason": "stop"}
            return web.json_response({"id": id_, "choices": [choice], **usage, **(handed if is_prefill else {})})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in self._events(id_, usage):
            await response.write(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    def _events(self, id_, usage):
        *first, last = self.pieces
        for piece in first:
            yield {"id": id_, "choices": [self._choice(piece, None)], **(usage if self.style == "running" else {})}
        is_with_end = self.style == "with the end"
        yield {"id": id_, "choices": [self._choice(last, "stop")], **(usage if is_with_end else {})}
        if usage and not is_with_end:
            yield {"id": id_, "choices": [], **usage}

    def _choice(self, piece, reason):
        end = {} if reason is None and self.style == "left out" else {"finish_reason": reason}
        return {"index": 0, "text": piece, "delta": {"content": piece}, **end}


@asynccontextmanager
async def pair(p, d, *, retries=0, **sections):
    """A proxy in front of two counting engines."""
    async with scripted_engine(p.answer) as first, scripted_engine(d.answer) as second:
        engines = Engines(prefill=(first,), decode=(second,))
        async with running_proxy(engines=engines, limits=Limits(retries=retries), **sections) as cluster:
            yield cluster


def body(path, *, stream, **fields):
    said = {"messages": [user("Hi")]} if path == CHAT else {"prompt": "Hi"}
    return {**said, "stream": stream, "max_tokens": 3, **fields}


async def checks(cluster, result):
    return (await cluster.samples()).get(CHECKS.format(result), 0)


@BOTH
@FORMATS
async def test_equal_counts_are_counted_and_the_answer_is_the_clients(path, stream):
    async with pair(Counting(7), Counting(7)) as cluster:
        reply = await cluster.ask(path, body(path, stream=stream))
        assert (reply.status, reply.route, reply.text) == (200, "pd", "one two three")
        assert await checks(cluster, "same") == 1
        assert b"usage" not in reply.body or not stream


@FORMATS
@pytest.mark.parametrize(("p", "d"), [(None, 7), (7, None), (None, None), (0, 7), ("7", 7)])
async def test_an_engine_without_a_count_is_at_no_fault(p, d, stream):
    async with pair(Counting(p), Counting(d)) as cluster:
        reply = await cluster.ask(COMPLETIONS, body(COMPLETIONS, stream=stream))
        assert (reply.status, reply.text) == (200, "one two three")
        assert not stream or reply.payloads[-1] == "[DONE]"
        assert await checks(cluster, "unknown") == 1


@BOTH
async def test_a_whole_answer_to_another_prompt_is_tried_again_and_its_kv_never(path):
    p, d = Counting(7), Counting(8, 7)
    async with pair(p, d, retries=1) as cluster:
        reply = await cluster.ask(path, body(path, stream=False))
        assert (reply.status, reply.reason, reply.text) == (200, "decode_failed", "one two three")
        assert len(p.bodies) == len(d.bodies) == 2
        assert (await checks(cluster, "differs"), await checks(cluster, "same")) == (1, 1)
        salts = [sent.get("cache_salt") for sent in d.bodies]
        assert salts[0] is None
        assert salts[1]  # what the decode engine holds of the first try must not be found


async def test_the_next_try_takes_another_pair_where_there_is_one():
    p, d = Counting(7), Counting(8)
    p2, d2 = Counting(7), Counting(7)
    async with scripted_engine(p2.answer) as third, scripted_engine(d2.answer) as fourth:
        async with scripted_engine(p.answer) as first, scripted_engine(d.answer) as second:
            engines = Engines(prefill=(first, third), decode=(second, fourth))
            async with running_proxy(engines=engines, limits=Limits(retries=1)) as cluster:
                for number in range(20):
                    sent = body(CHAT, stream=False, messages=[user(f"{number}")])
                    assert (await cluster.ask(CHAT, sent)).status == 200
    assert d.bodies
    for sent in d.bodies:
        asked = [[each["messages"] for each in engine.bodies].count(sent["messages"]) for engine in (p, p2, d2)]
        assert asked == [1, 1, 1]


@BOTH
async def test_without_a_try_left_a_whole_answer_becomes_502(path):
    async with pair(Counting(7), Counting(8)) as cluster:
        reply = await cluster.ask(path, body(path, stream=False))
        assert reply.status == 502
        assert b"one two" not in reply.body
        assert "prefill engine counts 7 tokens, the decode engine 8" in reply.error["message"]


@BOTH
@pytest.mark.parametrize("wants_usage", [False, True])
@pytest.mark.parametrize("style", ["separate", "with the end", "left out"])
async def test_a_stream_to_another_prompt_ends_with_an_error_in_place_of_its_end(path, style, wants_usage):
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with pair(Counting(7), Counting(8, style=style)) as cluster:
        reply = await cluster.ask(path, body(path, stream=True, **options))
        assert reply.status == 200
        *content, last = reply.payloads
        assert "".join(json.loads(each)["choices"][0]["text"] for each in content) == "one two "
        assert "the decode engine 8" in json.loads(last)["error"]["message"]
        assert b'"finish_reason":"stop"' not in reply.body
        assert await checks(cluster, "differs") == 1
        assert cluster.runtime.conversations.count == 0


@pytest.mark.parametrize("style", ["separate", "with the end", "left out"])
async def test_a_stream_of_equal_counts_is_the_engines_own(style):
    async with pair(Counting(7), Counting(7, style=style)) as cluster:
        reply = await cluster.ask(COMPLETIONS, body(COMPLETIONS, stream=True))
        assert reply.text == "one two three"
        assert reply.payloads[-1] == "[DONE]"
        assert [event["choices"][0].get("finish_reason") for event in reply.events][-1] == "stop"
        assert await checks(cluster, "same") == 1


@pytest.mark.parametrize(("style", "pieces"), [("running", ("one ", "two")), ("separate", ("only",))])
async def test_a_stream_whose_count_comes_before_any_content_left_is_tried_again(style, pieces):
    p, d = Counting(7), Counting(8, 7, style=style, pieces=pieces)
    async with pair(p, d, retries=1) as cluster:
        reply = await cluster.ask(CHAT, body(CHAT, stream=True))
        assert (reply.status, reply.reason) == (200, "decode_failed")
        assert reply.text == "".join(pieces)
        assert reply.payloads[-1] == "[DONE]"


async def test_three_differences_take_the_pair_out_of_use_until_a_person_trusts_it():
    p, d = Counting(7), Counting(8)
    async with pair(p, d) as cluster:
        for _ in range(LIMIT):
            assert (await cluster.complete("Hi")).status == 502
        d.counts = [7]
        (shown,) = (await cluster.ask("/engines")).json["distrusted_pairs"]
        engines = cluster.runtime.fleet.view
        ids = engines.prefill[0].id, engines.decode[0].id
        assert shown == {"prefill": ids[0], "decode": ids[1], "differing": LIMIT, "compared": LIMIT}
        reply = await cluster.complete("Ho")
        assert (reply.status, reply.route, reply.reason) == (200, "direct", "split_distrusted")
        wrong = await cluster.ask("/accuracy/trust?scope=pair:x>y", {})
        assert wrong.status == 404
        trusted = await cluster.ask(f"/accuracy/trust?scope=pair:{ids[0]}>{ids[1]}", {})
        assert [each["pair"] for each in trusted.json["trusted"]] == [list(ids)]
        assert (await cluster.ask("/engines")).json["distrusted_pairs"] == []
        assert (await cluster.complete("Ho")).route == "pd"


async def test_a_new_incarnation_ends_the_distrust():
    async with pair(Counting(7), Counting(8)) as cluster:
        for _ in range(LIMIT):
            await cluster.complete("Hi")
        fleet, now = cluster.runtime.fleet, asyncio.get_running_loop().time()
        (decode,) = fleet.view.decode
        for is_healthy in (False, False, False, True, True):
            fleet.probed(decode.id, is_healthy, now)
        await until(lambda: not cluster.runtime.control.distrust.pairs)
        assert (await cluster.complete("Ho")).route == "pd"


async def test_the_guard_and_the_rule_about_prompts_do_not_overwrite_each_other():
    """The guard says what it distrusts with every sample, and every second."""
    async with running_engine(EngineConfig(role="aggregated")) as baseline:
        shadow = Shadow(baseline=(baseline.url,), shadow_rate=1.0, guard="act")
        async with pair(Counting(7), Counting(8), shadow=shadow) as cluster:
            for _ in range(LIMIT):
                await cluster.complete("Hi")
            accuracy = cluster.runtime.accuracy
            accuracy.step()
            assert len(cluster.runtime.control.distrust.pairs) == 1
            assert accuracy.shadow.waiting + accuracy.shadow.checking + accuracy.shadow.parked == 0


async def test_a_broken_off_stream_of_a_sampled_request_is_no_evidence():
    async with running_engine(EngineConfig(role="aggregated")) as baseline:
        shadow = Shadow(baseline=(baseline.url,), shadow_rate=1.0)
        async with pair(Counting(7), Counting(8), shadow=shadow) as cluster:
            await cluster.complete("Hi", stream=True)
            told = cluster.runtime.accuracy.shadow
            assert told.waiting + told.checking + told.parked == 0
            assert not {outcome for _, outcome in told.outcomes} - {"unscorable"}


@FORMATS
async def test_a_truncation_that_follows_from_max_tokens_is_not_split(stream):
    async with running_cluster() as cluster:
        for value in (-1, "-1", -1.0):
            reply = await cluster.chat("Hi", truncate_prompt_tokens=value, stream=stream)
            assert (reply.route, reply.reason) == ("direct", "prompt_depends_on_output")
        assert cluster.prefill.requests == []
        assert (await cluster.chat("Hi", truncate_prompt_tokens=50)).route == "pd"


async def test_routes_with_one_leg_are_not_compared():
    async with running_cluster() as cluster:
        first = await cluster.chat("Hi")
        await cluster.chat([user("Hi"), {"role": "assistant", "content": first.text}, user("And?")])
        assert await checks(cluster, "same") == 1
        assert await checks(cluster, "unknown") == 0
