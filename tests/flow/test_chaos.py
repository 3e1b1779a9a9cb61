"""Many conversations at once while engines fail and clients leave at random: what must hold whatever happens."""

import asyncio
import random

import pytest
from tests.support.cluster import CHAT, LIMIT_S, ask_engine, assistant, running_cluster, until, user

from ppd_proxy.config.sections import Limits, Routing
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

CONVERSATIONS, TURNS = 30, 3
FAULTS = (
    Fault(kind="status", path="/v1/", probability=0.06),
    Fault(kind="drop", path="/v1/", probability=0.06),
    Fault(kind="error_after", path="/v1/", probability=0.06, chunks=0),
    Fault(kind="die_after", path="/v1/", probability=0.06, chunks=2),
    Fault(kind="delay", path="/v1/", probability=0.2, delay_s=0.02),
)
ALLOWED = {200, 500, 502, 503, 504}


class Talk:
    """One user: asks, leaves at times, and checks every answer against an engine that nothing ever happens to."""

    def __init__(self, cluster, whole, number):
        self._cluster, self._whole = cluster, whole
        self._random = random.Random(number)
        self._history = []
        self._number = number
        self.outcomes = []

    async def run(self):
        for turn in range(TURNS):
            self._history.append(user(f"User {self._number}, question {turn}: and then?"))
            while (answer := await self._ask()) is None:
                pass
            self._history.append(assistant(answer))

    async def _ask(self):
        """The answer, or None where there was none."""
        fields = {"stream": self._random.random() < 0.5, "max_tokens": 6, "temperature": 0}
        patience_s = self._random.choice((0.01, 0.03, LIMIT_S, LIMIT_S, LIMIT_S))
        try:
            async with asyncio.timeout(patience_s):
                reply = await self._cluster.chat(self._history, **fields)
        except TimeoutError:
            assert patience_s < LIMIT_S, "the proxy did not answer"
            self.outcomes.append("left")
            return None
        self.outcomes.append(str(reply.status))
        assert reply.status in ALLOWED
        assert reply.broken is None
        if reply.status != 200:
            assert reply.error["message"]
            return None
        if reply.is_stream and "error" in reply.events[-1]:
            assert "[DONE]" not in reply.payloads
            return None
        assert not reply.is_stream or reply.payloads[-1] == "[DONE]"
        expected = await ask_engine(self._cluster.http, self._whole, CHAT, {"messages": self._history, **fields})
        assert reply.text == expected.text
        return reply.text


def is_direct_safe(handoff):
    return {"is_ppd": True, "kv_port": 0} if handoff == "p2p_nccl" else {}


@pytest.mark.parametrize(
    ("handoff", "retries"), [("nixl", 0), ("nixl", 1), ("nixl", 3), ("p2p_nccl", 0), ("p2p_nccl", 2), ("none", 1)]
)
async def test_no_wrong_answer_no_leak_and_no_kv_twice_whatever_fails(handoff, retries):
    engine = {
        "timing": TimingConfig(decode_ms_per_token=1, prefill_fixed_ms=2), "kv_lease_s": 0.5, "handoff": handoff,
        **is_direct_safe(handoff),
    }  # fmt: skip
    limits = Limits(retries=retries, release_grace_s=0.1)
    routing = Routing(handoff=handoff, trust_direct=True)
    async with (
        running_engine(EngineConfig(role="aggregated")) as whole,
        running_cluster(prefill=2, decode=3, engine=engine, limits=limits, routing=routing) as cluster,
    ):
        for each in cluster.engines:
            if each.zmq_address:
                told = {"url": each.url, "role": each.config.role, "zmq_address": each.zmq_address}
                assert (await cluster.ask("/engines", told)).status == 200
            each.faults.add(*FAULTS)
        talks = [Talk(cluster, whole, number) for number in range(CONVERSATIONS)]
        async with asyncio.TaskGroup() as group:
            for talk in talks:
                group.create_task(talk.run())
        outcomes = {outcome for talk in talks for outcome in talk.outcomes}
        assert {"200", "left"} <= outcomes
        await until(lambda: not any(cluster.runtime.load.requests.values()))
        await until(lambda: all(each.core.slots.running == 0 for each in cluster.engines))
        await cluster.becomes_idle()
        for each in cluster.engines:
            assert each.counts.stale_pulls <= each.counts.expired_leases
            assert each.counts.mismatched_handoffs == 0
            assert each.counts.multi_sequence_handoffs == 0
            assert not each.has_died
        assert (handoff == "none") != any(each.counts.transfers for each in cluster.decodes)
        assert (await cluster.ask("/health")).status == 200


async def test_many_streams_at_once_stay_apart():
    async with running_cluster(prefill=2, decode=2) as cluster:

        async def one(number):
            reply = await cluster.chat(f"Number {number}", stream=True, max_tokens=30)
            assert reply.payloads[-1] == "[DONE]"
            assert len({event["id"] for event in reply.events}) == 1
            return number, reply.text

        async with asyncio.timeout(LIMIT_S):
            together = dict(await asyncio.gather(*(one(number) for number in range(60))))
        alone = dict([await one(number) for number in (0, 17, 59)])
        assert all(together[number] == text for number, text in alone.items())
