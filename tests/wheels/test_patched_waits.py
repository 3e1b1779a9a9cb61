"""No wait of a patched engine lasts for ever, and what did not arrive is never used. Stubs: see `test_patches.py`."""

from __future__ import annotations

import threading  # noqa: TID251  waits run beside the test
import time

import msgpack
import pytest
import zmq
from tests.wheels.cases import (
    D_BLOCKS,
    KEY,
    PROMPT,
    as_decode,
    as_prefill,
    every_release,
    put,
    raising,
    received,
    reporting,
    tag,
)
from tests.wheels.releases import load
from tests.wheels.side import BLOCK, LONG_S, SHORT_S, free_port
from tests.wheels.stubs import MEMORY_LIMIT, tensor

pytestmark = pytest.mark.wheels


@every_release
def test_waiting_for_a_tensor_ends_at_the_limit(version, sides):
    decode = sides(version, producer=False, timeout_s=SHORT_S)
    start = time.monotonic()
    assert decode.engine.recv_tensor(f"{as_decode(tag())}#0", "10.0.0.1:21001") is None
    assert SHORT_S <= time.monotonic() - start < LONG_S


@every_release
def test_the_limit_is_thirty_seconds_unless_configured(version, sides):
    assert sides(version, producer=False, timeout_s=30).engine.timeout_s == load(version).engine.DEFAULT_TIMEOUT_S == 30


@reporting
def test_blocks_that_did_not_arrive_are_reported_once(version, sides):
    decode = sides(version, producer=False, timeout_s=SHORT_S)
    decode.schedule(as_decode(tag()), D_BLOCKS, PROMPT)
    decode.load()
    assert decode.worker.get_block_ids_with_load_errors() == set(D_BLOCKS)
    assert decode.worker.get_block_ids_with_load_errors() == set()


@reporting
def test_blocks_of_the_local_prefix_cache_are_not_reported(version, sides):
    decode = sides(version, producer=False, timeout_s=SHORT_S)
    decode.schedule(as_decode(tag()), D_BLOCKS, PROMPT, num_computed=2 * BLOCK)
    decode.load()
    assert decode.worker.get_block_ids_with_load_errors() == {D_BLOCKS[2]}


@reporting
def test_one_limit_holds_for_all_loads_of_a_step(version, sides):
    decode = sides(version, producer=False, timeout_s=SHORT_S)
    waited = []
    decode.engine.recv_tensor = lambda _id, _address, deadline: waited.append(deadline)
    meta = decode.schedule(as_decode(tag()), D_BLOCKS, PROMPT)
    other = decode.schedule(as_decode(tag(key="e" * 32)), [0, 1, 4], PROMPT)
    meta.requests += other.requests
    decode.worker.bind_connector_metadata(meta)
    decode.load()
    assert len(waited) == 2, "one wait per request: after a failed layer the others are not waited for"
    assert waited[0] == waited[1]
    assert decode.worker.get_block_ids_with_load_errors() == {*D_BLOCKS, 0, 1, 4}


@raising
def test_a_missing_layer_stops_the_engine_where_vllm_cannot_recompute(version, sides):
    decode = sides(version, producer=False, timeout_s=SHORT_S)
    decode.schedule(as_decode(tag()), D_BLOCKS, PROMPT)
    with pytest.raises(RuntimeError, match=r"KV of .* is missing"):
        decode.load()


@every_release
@pytest.mark.parametrize("num_tokens", [BLOCK, 4 * BLOCK])
def test_kv_of_another_length_is_never_taken_for_whole(version, num_tokens, sides):
    prefill, decode = (sides(version, producer=producer) for producer in (True, False))
    request_tag = tag(prefill.address, decode.address)
    prefill.fill()
    prefill.schedule(as_prefill(request_tag), [5, 1, 6, 0][: num_tokens // BLOCK], num_tokens)
    prefill.save()
    decode.schedule(as_decode(request_tag), D_BLOCKS, PROMPT)
    if not decode.release.reports_failed_blocks:
        with pytest.raises(RuntimeError, match="missing"):
            decode.load()
        return
    decode.load()
    arrived = num_tokens // BLOCK if num_tokens < PROMPT else 0
    assert decode.worker.get_block_ids_with_load_errors() == set(D_BLOCKS[arrived:])


@every_release
def test_a_tensor_that_found_no_memory_is_a_failed_load(version, sides, peers):
    decode = sides(version, producer=False)
    peer = peers(decode)
    peer.join()
    assert peer.ask(put(f"{KEY}#0", [MEMORY_LIMIT, 2])) == b"1"
    assert received(decode, f"{KEY}#0")
    assert decode.engine.recv_tensor(f"{as_decode(tag())}#0") is None


@every_release
def test_sending_to_a_silent_peer_ends_and_its_late_answer_is_dropped(version, sides, context):
    prefill = sides(version, producer=True, timeout_s=10 * SHORT_S)
    silent = context.socket(zmq.ROUTER)
    silent.setsockopt(zmq.RCVTIMEO, int(LONG_S * 1000))
    address = f"127.0.0.1:{silent.bind_to_random_port('tcp://127.0.0.1')}"
    sent = tensor([[1.0], [2.0]])
    assert not prefill.send("a#0", sent, address)
    first, _ = silent.recv_multipart()  # NEW
    assert silent.recv_multipart()[0] == first
    prefill.engine.retry_at.clear()
    outcomes: list[bool] = []
    refused = threading.Thread(target=lambda: outcomes.append(prefill.send("b#0", sent, address)))
    refused.start()
    second, new = silent.recv_multipart()
    assert msgpack.loads(new)["cmd"] == "NEW"
    assert second != first
    silent.send_multipart([first, b"0"])  # the late answer
    assert msgpack.loads(silent.recv_multipart()[1])["tensor_id"] == "b#0"
    silent.send_multipart([second, b"1"])
    refused.join(LONG_S)
    assert outcomes == [False]


@every_release
def test_an_unreachable_peer_fails_once_and_is_left_alone_for_a_while(version, sides):
    prefill = sides(version, producer=True, timeout_s=SHORT_S)
    address = f"127.0.0.1:{free_port()}"
    assert not prefill.send("a#0", tensor([[1.0], [2.0]]), address)
    assert not prefill.engine.nccl.joined, "joining waits for the peer, without a limit"
    with pytest.raises(ConnectionError):
        prefill.connect(address)
    assert not prefill.send("a#1", tensor([[1.0], [2.0]]), address)
    assert not prefill.engine.socks
    assert not prefill.engine.comms


@every_release
def test_fetching_from_a_silent_peer_ends(version, sides, context):
    decode = sides(version, producer=False, timeout_s=10 * SHORT_S, send_type="GET")
    silent = context.socket(zmq.ROUTER)
    address = f"127.0.0.1:{silent.bind_to_random_port('tcp://127.0.0.1')}"
    assert decode.engine.recv_tensor(f"{as_decode(tag())}#0", address) is None
    assert not decode.engine.socks


@every_release
def test_waiting_for_the_send_queue_ends_at_the_limit(version, sides, caplog):
    prefill = sides(version, producer=True, timeout_s=SHORT_S)
    engine = prefill.engine
    with engine.send_queue_cv:  # the sending thread cannot take it: it sleeps until it is notified
        engine.send_queue.append(prefill.item("a#0", tensor([[1.0], [2.0]]), "127.0.0.1:1"))
    engine.wait_for_sent()
    assert "not sent in time" in caplog.text
    engine.send_queue.clear()
