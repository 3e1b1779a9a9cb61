"""What the published releases do where the patched ones differ, on one release of each source layout."""

from __future__ import annotations

import threading  # noqa: TID251  waits run beside the test

import pytest
from tests.wheels.cases import D_BLOCKS, P_BLOCKS, PROMPT, as_decode, as_prefill, put, received, stock, tag
from tests.wheels.side import LAYERS, LONG_S, SHORT_S

pytestmark = pytest.mark.wheels


@stock
def test_stock_derives_different_tensor_ids_on_the_two_sides(version, sides):
    prefill, decode = (sides(version, producer=producer, patched=False) for producer in (True, False))
    request_tag = tag(prefill.address, decode.address)
    prefill.schedule(as_prefill(request_tag), P_BLOCKS, PROMPT)
    prefill.save()
    assert received(decode, f"{as_prefill(request_tag)}#1")
    waiting = threading.Thread(target=lambda: decode.engine.recv_tensor(f"{as_decode(request_tag)}#0"), daemon=True)
    waiting.start()
    waiting.join(SHORT_S)
    assert waiting.is_alive()
    with decode.engine.recv_store_cv:
        decode.engine.recv_store[f"{as_decode(request_tag)}#0"] = None
        decode.engine.recv_store_cv.notify_all()
    waiting.join(LONG_S)


@stock
def test_stock_fails_on_a_request_without_a_tag(version, sides):
    prefill = sides(version, producer=True, patched=False)
    prefill.schedule("cmpl-direct-0", P_BLOCKS, PROMPT)
    with pytest.raises(ValueError, match="does not contain hostname and port"):
        prefill.save()
    with pytest.raises(AssertionError):
        prefill.schedule_again("cmpl-direct-0", PROMPT, 1)


@stock
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("message", [b"\xc1", {"cmd": "NEW"}, put("a#0")])
def test_stock_loses_its_listener(version, message, sides, peers):
    decode = sides(version, producer=False, patched=False)
    peers(decode).send(message)
    decode.engine._listener_thread.join(LONG_S)
    assert not decode.engine._listener_thread.is_alive()


@stock
def test_stock_goes_on_without_a_missing_layer(version, sides):
    decode = sides(version, producer=False, patched=False)
    prefill_address = "10.0.0.1:21001"
    request_id = as_decode(tag(prefill_address))
    decode.engine.recv_store.update({f"{request_id}#{layer}": None for layer in LAYERS})
    decode.schedule(request_id, D_BLOCKS, PROMPT)
    decode.load()
