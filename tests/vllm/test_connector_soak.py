"""Two thousand requests of all kinds, some cancelled at random moments: no block leaks, memory stays, nothing hangs."""

import asyncio
import json
import random
import resource
import statistics
from pathlib import Path

import aiohttp
import pytest
from tests.vllm.conftest import UseCluster
from tests.vllm.engine_calls import completion
from tests.vllm.kv_calls import held_bytes, kv_in_use, post, ppd_cluster, prompt_of, wait_until

from cluster import Cluster, Engine

REQUESTS = 2000
CLIENTS = 6
SAMPLES = 20
LONGEST_S = 120


def memory_bytes(engine: Engine) -> int:
    """Resident memory of the engine's process group: the server and its workers."""
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == engine.child.pid:
                pages += int((stat.parent / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * resource.getpagesize()


async def client(url: str, numbers: "asyncio.Queue[int]", done: list[str]) -> None:
    """Conversations of one to three turns; a third of the requests are left at a random moment."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONGEST_S)) as session:
        while not numbers.empty():
            chance = random.Random(numbers.get_nowait())
            text = prompt_of(chance.randint(8, 250), chance.randint(0, 10**9))
            for _ in range(chance.randint(1, 3)):
                body = {
                    "model": "tiny", "prompt": text, "max_tokens": chance.randint(1, 24), "temperature": 0,
                    "stream": chance.random() < 0.5,
                }  # fmt: skip
                patience_s = chance.uniform(0, 0.6) if chance.random() < 0.33 else LONGEST_S
                try:
                    async with asyncio.timeout(patience_s):
                        async with session.post(f"{url}/v1/completions", json=body) as answer:
                            told = await answer.read()
                            done.append(str(answer.status))
                except TimeoutError:
                    done.append("cancelled" if patience_s < LONGEST_S else "hung")
                    break
                if answer.status != 200 or body["stream"] or numbers.empty():
                    break
                numbers.get_nowait()
                text += json.loads(told)["choices"][0]["text"] + " " + prompt_of(6, chance.randint(0, 10**9))


async def play(cluster: Cluster, samples: list[dict[str, int]]) -> list[str]:
    numbers: asyncio.Queue[int] = asyncio.Queue()
    for number in range(REQUESTS):
        numbers.put_nowait(number)
    done: list[str] = []
    clients = [asyncio.ensure_future(client(cluster.proxy_url, numbers, done)) for _ in range(CLIENTS)]  # noqa: TID251
    step = REQUESTS // SAMPLES
    while not all(each.done() for each in clients):
        await asyncio.wait(clients, timeout=1)
        if REQUESTS - numbers.qsize() >= step * (len(samples) + 1):
            roles = ("prefill", "decode")
            samples.append({role: memory_bytes(cluster.engine(role)) for role in roles})
            print(f"{REQUESTS - numbers.qsize()} requests, {samples[-1]} bytes resident", flush=True)
    await asyncio.gather(*clients)
    return done


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("send_type", ["PUT_ASYNC", "GET"])
def test_two_thousand_mixed_requests_leave_nothing_behind(use_cluster: UseCluster, send_type: str) -> None:
    engine = {"kv_settings": {"send_type": send_type, "lease_s": 5}, "load_failure_policy": "recompute"}
    cluster = use_cluster(ppd_cluster(decode=engine, prefill=engine))
    samples: list[dict[str, int]] = []
    done = asyncio.run(play(cluster, samples))
    counts = {outcome: done.count(outcome) for outcome in sorted(set(done))}
    print(f"{send_type}: {counts}")
    assert set(counts) <= {"200", "cancelled"}, counts
    assert counts["cancelled"] > REQUESTS / 10
    for role in ("prefill", "decode"):
        each = cluster.engine(role)
        wait_until(lambda each=each: post(each, "step", "a b", 1).status == 200 and held_bytes(each) == 0, "no KV held")
        wait_until(lambda each=each: kv_in_use(each) == 0, f"{role} holds no block")
        half = [sample[role] for sample in samples[len(samples) // 2 :]]
        early, late = statistics.median(half[: len(half) // 2]), statistics.median(half[len(half) // 2 :])
        print(f"{role}: {early / 2**20:.0f} MiB, then {late / 2**20:.0f} MiB")
        assert late < early * 1.05, f"{role} grows"
    text = prompt_of(100, 4)
    assert completion(cluster.proxy_url, text).token_ids == completion(cluster.engine("aggregated").url, text).token_ids
