"""Sampled answers: the client cannot tell that it was one, and the candidate is what an unsplit engine says."""

import itertools
import json
import re
from contextlib import asynccontextmanager

import pytest
from tests.support.cluster import CHAT, COMPLETIONS, ask_engine, running_cluster, user

from ppd_proxy.request.sampling import candidate_of
from ppd_proxy.request.serving import Serving
from ppd_sim.faults import Fault
from ppd_sim.model.model import ModelConfig

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "function": {"name": "look_up"}}
ENGINES = {
    "words": {},
    "split characters": {"model": ModelConfig(split_character_share=0.4)},
    "reasoning": {"reasoning_tokens": 5},
    "reasoning and split characters": {"reasoning_tokens": 5, "model": ModelConfig(split_character_share=0.4)},
}
REQUESTS = {
    "chat": (CHAT, {}),
    "required tool": (CHAT, {"tools": [TOOL], "tool_choice": "required"}),
    "named tool": (CHAT, {"tools": [TOOL], "tool_choice": NAMED}),
    "text": (COMPLETIONS, {"prompt": "The mill by the river"}),
    "token ids": (COMPLETIONS, {"prompt": [1500, 84, 1600, 84, 1700]}),
}
FORMATS = pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])


class Candidates:
    """What every answer left behind, in order; None where there was no candidate."""

    def __init__(self, monkeypatch):
        self.found = []
        self.asked_for = []
        found = self.found

        class Watched(Serving):
            def complete(self, ongoing, leg):
                is_first = not ongoing.is_complete
                super().complete(ongoing, leg)
                if is_first and leg.status == 200:
                    found.append(candidate_of(ongoing, leg))

        monkeypatch.setattr("ppd_proxy.runtime.runtime.Serving", Watched)

    def sample(self, cluster, answer):
        self._answer = answer
        cluster.runtime.sampling.sink = self

    asked_tops = 0

    def is_sampled(self, request_id):
        self.asked_for.append(request_id)
        return self._answer

    def takes(self, body_bytes):
        """Anything."""
        return True

    def offer(self, sample):
        """What a sample becomes is not looked at here."""

    def broke(self, sample):
        """As `offer`."""

    def skip(self, route):
        """As `offer`."""

    def ask_no_tops(self, refused_by, count):
        """No engine here refuses."""


@pytest.fixture
def candidates(monkeypatch):
    return Candidates(monkeypatch)


@asynccontextmanager
async def sampling_cluster(candidates, engine=None, **options):
    shared = {"has_prefix_cache": False, **(engine or {})}
    async with running_cluster(aggregated=1, engine=shared, **options) as cluster:
        candidates.sample(cluster, True)
        yield cluster


def wishes(path, logprobs, ids):
    found = {"return_token_ids": True} if ids else {}
    if logprobs is None:
        return found
    return {**found, **({"logprobs": True, "top_logprobs": logprobs} if path == CHAT else {"logprobs": logprobs})}


def body_of(path, fields, stream, **more):
    default = {"messages": [user("Hello there")]} if path == CHAT else {}
    return {**default, "max_tokens": 14, "temperature": 0, **({"stream": True} if stream else {}), **fields, **more}


def plain(body):
    """An answer's bytes without ids and times, and without what only a split answer has."""
    body = re.sub(rb'"((chat)?cmpl-)[^"]*"', rb'"\1"', body)
    body = re.sub(rb'"created":\d+', b'"created":0', body)
    body = re.sub(rb'"cached_tokens":\d+', b'"cached_tokens":0', body)
    return body.replace(b'"kv_transfer_params":null,', b"")


async def scored(cluster, path, body, top, *, by_id=False):
    """The same request to an unsplit engine, in JSON, with everything asked for."""
    asked = {**body, "stream": False, "return_tokens_as_token_ids": by_id, **wishes(path, top, True)}
    return (await ask_engine(cluster.http, cluster.aggregated[0], path, asked)).json


def scores_of(path, answer):
    """Token ids, their logprobs and the likeliest tokens' of one JSON answer."""
    choice = answer["choices"][0]
    if path == COMPLETIONS:
        given = choice["logprobs"]
        return choice["prompt_token_ids"], choice["token_ids"], given["token_logprobs"], given["top_logprobs"]
    entries = choice["logprobs"]["content"]
    tops = [{top["token"]: top["logprob"] for top in reversed(entry["top_logprobs"])} for entry in entries]
    return answer["prompt_token_ids"], choice["token_ids"], [entry["logprob"] for entry in entries], tops


@FORMATS
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_sampled_answer_is_the_unsampled_one_byte_for_byte(candidates, engine, request_name, stream):
    path, fields = REQUESTS[request_name]
    async with sampling_cluster(candidates, ENGINES[engine]) as cluster:
        candidates.asked_tops = 3
        for logprobs, ids in itertools.product((None, 0, 2), (False, True)):
            body = body_of(path, fields, stream, **wishes(path, logprobs, ids))
            replies = []
            for is_sampled in (False, True):
                candidates.sample(cluster, is_sampled)
                replies.append(await cluster.ask(path, body))
            unsampled, sampled = replies
            direct = await ask_engine(cluster.http, cluster.aggregated[0], path, body)
            assert (unsampled.status, sampled.status, sampled.route) == (200, 200, "pd")
            assert plain(sampled.body) == plain(unsampled.body) == plain(direct.body)

            top = 3 if logprobs is None else logprobs
            answer = await scored(cluster, path, body, top, by_id=logprobs is None)
            nothing, candidate = candidates.found[-2:]
            assert nothing is None
            said = scores_of(path, answer)
            assert (candidate.prompt_token_ids, candidate.token_ids, candidate.logprobs, candidate.tops) == said
            assert len(candidate.token_ids) == 14
            assert all(len(tops) in (top, top + 1) for tops in candidate.tops)
            choice = answer["choices"][0]
            message = choice.get("message") or {"content": choice.get("text")}
            assert candidate.text == message["content"]
            assert candidate.finish_reason == choice["finish_reason"] == "length"
            calls = [call["function"] for call in message.get("tool_calls", ())]
            assert [call["function"] for call in candidate.tool_calls] == calls


@FORMATS
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_usage_and_its_running_figures_are_the_same(candidates, path, stream):
    options = {"include_usage": True, "continuous_usage_stats": True}
    fields = {"prompt": "Hi"} if path == COMPLETIONS else {"tools": [TOOL], "tool_choice": "required"}
    body = body_of(path, fields, stream, **({"stream_options": options} if stream else {}))
    async with sampling_cluster(candidates, {"reasoning_tokens": 3}) as cluster:
        sampled = await cluster.ask(path, body)
        candidates.sample(cluster, False)
        unsampled = await cluster.ask(path, body)
        assert plain(sampled.body) == plain(unsampled.body)
        assert sampled.body.count(b'"usage"') == unsampled.body.count(b'"usage"') > 0


@FORMATS
async def test_each_request_is_drawn_once_by_its_public_id(candidates, stream):
    async with sampling_cluster(candidates) as cluster:
        reply = await cluster.chat("Hi", stream=stream)
        assert candidates.asked_for == [reply.headers["x-request-id"]]
        (decode,) = cluster.decode.requests
        asked = [decode.body[name] for name in ("return_token_ids", "logprobs", "top_logprobs")]
        assert asked == [True, True, 0]
        (prefill,) = cluster.prefill.requests
        assert not {"return_token_ids", "logprobs", "top_logprobs"} & set(prefill.body)


@FORMATS
async def test_by_default_nothing_is_sampled(candidates, stream):
    async with running_cluster() as cluster:
        await cluster.chat("Hi", stream=stream)
        (decode,) = cluster.decode.requests
        assert not {"return_token_ids", "logprobs"} & set(decode.body)
        assert candidates.found == [None]


@FORMATS
async def test_an_answer_on_a_later_turn_is_a_candidate_too(candidates, stream):
    async with sampling_cluster(candidates) as cluster:
        cluster.runtime.control.mode = "ppd"
        first = await cluster.chat("Hi", stream=stream)
        history = [user("Hi"), {"role": "assistant", "content": first.text}, user("And then?")]
        second = await cluster.chat(history, stream=stream)
        assert (first.route, second.route) == ("pd", "direct")
        body = body_of(CHAT, {"messages": history}, stream=False, max_tokens=20)
        _, ids, logprobs, _ = scores_of(CHAT, await scored(cluster, CHAT, body, 0))
        assert (candidates.found[1].token_ids, candidates.found[1].logprobs) == (ids, logprobs)


@FORMATS
async def test_an_answer_after_a_failed_decode_leg_was_not_asked_for(candidates, stream):
    """vLLM fails with 500 where it cannot write a logprob: the next try must not fail the same way."""
    async with sampling_cluster(candidates) as cluster:
        cluster.decode.faults.add(Fault(kind="status", times=1))
        failed, served = await cluster.chat("Hi", stream=stream), await cluster.chat("Ho", stream=stream)
        assert (failed.status, failed.reason, served.status) == (200, "decode_failed", 200)
        asked = [
            "return_token_ids" in received.body
            for engine in (*cluster.decodes, *cluster.aggregated)
            for received in engine.requests
        ]
        assert sorted(asked) == [False, True]
        assert [found is not None for found in candidates.found] == [False, True]


async def test_an_answer_that_broke_off_is_no_candidate(candidates):
    async with sampling_cluster(candidates) as cluster:
        cluster.decode.faults.add(Fault(kind="error_after", chunks=3))
        await cluster.chat("Hi", stream=True)
        assert [found for found in candidates.found if found is not None] == []


@FORMATS
@pytest.mark.parametrize(
    "fields",
    [
        {"include_reasoning": False}, {"echo": True}, {"n": 2, "temperature": 1.0},
    ],
    ids=str,
)  # fmt: skip
async def test_a_request_that_cannot_be_sampled_is_served_as_ever(candidates, fields, stream):
    async with sampling_cluster(candidates) as cluster:
        reply = await cluster.ask(CHAT, body_of(CHAT, fields, stream))
        assert reply.status == 200
        served = [received.body for engine in cluster.engines for received in engine.requests]
        assert served
        assert not any("return_token_ids" in body or "logprobs" in body for body in served)
        assert candidates.found == [None]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_errors_reach_the_client_as_they_came(candidates, path):
    async with sampling_cluster(candidates) as cluster:
        body = body_of(path, {"prompt": "Hi"}, stream=False, temperature=9)
        reply = await cluster.ask(path, body)
        direct = await ask_engine(cluster.http, cluster.aggregated[0], path, body)
        assert (reply.status, json.loads(reply.body)) == (400, direct.json)
        assert candidates.found == []
