import asyncio

import aiohttp
import pytest

from ppd_sim.faults import Fault, Faults, parse_faults

CHAT = "/v1/chat/completions"
LIMIT_S = 30
BODY = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0, "ignore_eos": True}


async def read_some(http, engine, **fields):
    """`(status, text, was the answer whole)`."""
    async with http.post(engine.url + CHAT, json={**BODY, **fields}) as response:
        parts = []
        try:
            async for part in response.content.iter_any():
                parts.append(part)  # noqa: PERF401 - keeps what came before the break
        except aiohttp.ClientError:
            return response.status, b"".join(parts).decode(), False
        return response.status, b"".join(parts).decode(), True


def test_faults_hit_by_path_number_and_times():
    faults = Faults()
    faults.add(Fault(kind="hang", path="/v1/chat", nth=2), Fault(kind="drop", times=1))
    kinds = [found.kind if (found := faults.match(path)) else None for path in (CHAT, CHAT, CHAT, "/health")]
    assert kinds == ["drop", "hang", None, None]
    assert faults.hits() == 2


def test_faults_with_a_probability_are_repeatable():
    def hits(seed):
        faults = Faults(seed)
        faults.add(Fault(kind="drop", probability=0.3))
        return [faults.match(CHAT) is not None for _ in range(1000)]

    assert hits(1) == hits(1) != hits(2)
    assert 200 < sum(hits(1)) < 400


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b'{"kind":"explode"}', "kind: 'explode' is not one of status, hang, drop, delay, die_after, .*corrupt, kill"),
        (b'{"path":"/v1/"}', "kind: None is not one of status"),
        (b'{"kind":"hang","probability":2}', "probability"),
        (b'{"kind":"status","status":1}', "status"),
        (b'{"kind":"hang","when":1}', "unknown field 'when'"),
        (b"[3]", "object"),
        (b"{", "truncated"),
    ],
)
def test_bad_faults_are_named(body, part):
    with pytest.raises(ValueError, match=part):
        parse_faults(body)


async def test_status_with_a_body_of_ones_own(http, engine):
    engine.faults.add(Fault(kind="status", status=503, body={"detail": "busy"}, times=1))
    assert await read_some(http, engine) == (503, '{"detail":"busy"}', True)
    assert (await read_some(http, engine))[0] == 200


async def test_drop_closes_before_the_answer(http, engine):
    engine.faults.add(Fault(kind="drop"))
    with pytest.raises(aiohttp.ClientError):
        await read_some(http, engine)


async def test_hang_lasts_until_the_client_leaves(http, engine, spawn, until):
    engine.faults.add(Fault(kind="hang"))
    waiting = spawn(read_some(http, engine))
    await until(lambda: engine.faults.hits() == 1)
    waiting.cancel()
    await until(lambda: engine.counts.aborts == 1)


async def test_delay_comes_before_the_answer(http, engine):
    engine.faults.add(Fault(kind="delay", delay_s=0.02))
    started_at = asyncio.get_running_loop().time()
    assert (await read_some(http, engine))[0] == 200
    assert asyncio.get_running_loop().time() - started_at >= 0.02


@pytest.mark.parametrize("chunks", [0, 3])
async def test_a_stream_that_dies_breaks_off_after_its_chunks(http, engine, chunks):
    engine.faults.add(Fault(kind="die_after", chunks=chunks))
    status, text, is_whole = await read_some(http, engine, stream=True)
    assert (status, is_whole) == (200, False)
    assert text.count("data: ") <= 1 + chunks
    assert "[DONE]" not in text


@pytest.mark.parametrize("chunks", [0, 3])
async def test_an_error_event_follows_the_chunks(http, engine, chunks):
    engine.faults.add(Fault(kind="error_after", chunks=chunks, message="KV lost"))
    status, text, is_whole = await read_some(http, engine, stream=True)
    events = text.split("\n\n")
    assert (status, is_whole, len(events)) == (200, True, chunks + 4)
    assert '"message":"KV lost"' in events[-3]
    assert events[-2:] == ["data: [DONE]", ""]
    assert sum('"role"' in event for event in events) == 1


async def test_a_truncated_stream_ends_without_done(http, engine):
    engine.faults.add(Fault(kind="truncate_after", chunks=2))
    status, text, is_whole = await read_some(http, engine, stream=True)
    assert (status, is_whole, text.count("data: ")) == (200, True, 3)
    assert "[DONE]" not in text


async def test_a_stalled_stream_sends_nothing_more(http, engine, until):
    engine.faults.add(Fault(kind="stall_after", chunks=2))
    async with http.post(engine.url + CHAT, json={**BODY, "stream": True}) as response:
        seen = b""
        async with asyncio.timeout(LIMIT_S):
            while seen.count(b"data: ") < 3:
                seen += await response.content.readany()
        assert engine.counts.aborts == 0
        response.close()
    await until(lambda: engine.counts.aborts == 1)


@pytest.mark.parametrize("kind", ["die_after", "truncate_after"])
async def test_half_a_json_answer(http, engine, kind):
    engine.faults.add(Fault(kind=kind))
    status, _, is_whole = await read_some(http, engine)
    assert (status, is_whole) == (200, False)


async def test_an_error_instead_of_a_json_answer(http, engine):
    engine.faults.add(Fault(kind="error_after"))
    assert (await read_some(http, engine))[0] == 500


async def test_damaged_kv_changes_the_answer(http, engine):
    engine.faults.add(Fault(kind="corrupt", nth=2))
    texts = []
    for _ in range(3):
        async with http.post(engine.url + CHAT, json=BODY) as response:
            texts.append((await response.json())["choices"][0]["message"]["content"])
    assert texts[0] == texts[2] != texts[1]


async def test_faults_can_be_set_and_cleared_over_http(http, engine):
    faults = {"faults": [{"kind": "status", "status": 429, "path": "/v1/chat"}]}
    async with http.post(engine.url + "/sim/faults", json=faults) as response:
        assert await response.json() == {"added": 1}
    assert (await read_some(http, engine))[0] == 429
    async with http.get(engine.url + "/sim/state") as response:
        assert (await response.json())["fault_hits"] == 1
    async with http.delete(engine.url + "/sim/faults") as response:
        assert response.status == 200
    assert (await read_some(http, engine))[0] == 200
    async with http.post(engine.url + "/sim/faults", json={"kind": "boom"}) as response:
        assert response.status == 400
