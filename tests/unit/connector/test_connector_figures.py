"""Figures, geometry and dumps: what is counted, what must agree, what a file holds."""

import json

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack
from tests.support.connector.kv_engines import KEY, LIMIT_S, fill, key_of
from tests.support.connector.memory_store import SHAPES, MemoryStore, some_kv

from ppd_connector import dumps
from ppd_connector.announcer import Announcer
from ppd_connector.dumps import Dumper
from ppd_connector.figures import MAX_PEERS, OTHER, Figures
from ppd_connector.geometry import LayerShape, blocks_of, fingerprint


def move(figures, peer="p", direction="recv"):
    figures.moved(direction, peer, kv_bytes=10, seconds=0.5, blocks=2, skipped_blocks=1)


def test_figures_are_summed_by_direction_and_peer_and_taken_once():
    figures = Figures()
    assert figures.take() is None
    for peer, direction in (("p", "recv"), ("p", "recv"), ("q", "recv"), ("p", "send")):
        move(figures, peer, direction)
    for reason in ("full", "full", "gone"):
        figures.failed("recv", "p", reason)
    taken = figures.take()
    assert sorted(taken["moved"]) == [
        ["recv", "p", 2, 20, 1.0, 4, 2],
        ["recv", "q", 1, 10, 0.5, 2, 1],
        ["send", "p", 1, 10, 0.5, 2, 1],
    ]
    assert sorted(taken["failed"]) == [["recv", "p", "full", 2], ["recv", "p", "gone", 1]]
    assert json.loads(json.dumps(taken)) == taken
    assert figures.take() is None


def test_too_many_peers_are_one():
    """For good: a peer does not come and go between two scrapes."""
    figures = Figures()
    for number in range(MAX_PEERS + 3):
        move(figures, f"p{number}")
    figures.failed("recv", "another", "full")
    taken = figures.take()
    assert len(taken["moved"]) == MAX_PEERS + 1
    assert [row for row in taken["moved"] if row[1] == OTHER] == [["recv", OTHER, 3, 30, 1.5, 6, 3]]
    assert taken["failed"] == [["recv", OTHER, "full", 1]]
    move(figures, "p0")
    move(figures, "late")
    assert [row[1] for row in figures.take()["moved"]] == ["p0", OTHER]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 9))
def test_blocks_of_are_those_that_tokens_lie_in(first, end, size):
    assert blocks_of(first, end, size) == len({token // size for token in range(first, end)})


def test_bytes_per_token():
    assert LayerShape(2, (4, 4), "bfloat16").bytes_per_token == 32
    assert LayerShape(1, (576,), "float8_e4m3fn").bytes_per_token == 576
    assert MemoryStore().geometry.bytes_per_token == 32 + 6 + 84


BASE = {"model": {"a": 1, "b": [2]}, "names": ("x", "y"), "layers": SHAPES[:2], "rank": 0, "ranks": 2}


def print_of(**changes):
    facts = {**BASE, **changes}
    return fingerprint(facts["model"], facts["names"], facts["layers"], rank=facts["rank"], ranks=facts["ranks"])


def test_a_fingerprint_does_not_depend_on_the_order_of_a_configuration():
    assert print_of() == print_of(model={"b": [2], "a": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"a": 2, "b": [2]}},
        {"names": ("x", "z")},
        {"names": ("y", "x")},
        {"layers": SHAPES[1::-1]},
        {"layers": (LayerShape(2, (4, 4), "float16"), SHAPES[1])},
        {"layers": (LayerShape(2, (4, 5), "bfloat16"), SHAPES[1])},
        {"layers": (LayerShape(3, (4, 4), "bfloat16"), SHAPES[1])},
        {"rank": 1},
        {"ranks": 4},
    ],
)
def test_a_fingerprint_covers_the_shape_of_kv(changes):
    assert print_of() != print_of(**changes)


# Dumps

BLOCKS, TOKENS = (9, 3, 40), [5, 6, 7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_dump_holds_what_was_in_the_cache(tmp_path, rank):
    store, kv = MemoryStore(), some_kv(len(TOKENS))
    fill(store, BLOCKS, kv)
    dumper = Dumper(tmp_path / "new", store, rank=rank)
    dumper.dump(KEY, BLOCKS, TOKENS, side="decode")
    fill(store, BLOCKS, some_kv(len(TOKENS), seed=99))
    dumper.stop()
    (path,) = (tmp_path / "new").iterdir()
    assert path.name == f"{KEY}_decode{'_rank2' if rank else ''}.npz"
    with np.load(path) as found:
        assert json.loads(str(found["metadata"])) == {
            "request_id": KEY, "side": "decode", "rank": rank, "dtype": "bfloat16", "block_size": 4,
            "token_ids": TOKENS, "layers": ["layer.0", "layer.1", "layer.2"],
        }  # fmt: skip
        assert set(found.files) - {"metadata"} == {
            "layer_0_key", "layer_0_value", "layer_1_latent", "layer_2_key", "layer_2_value",
        }  # fmt: skip
        assert np.array_equal(found["layer_0_key"], kv[0][0])
        assert np.array_equal(found["layer_0_value"], kv[0][1])
        assert np.array_equal(found["layer_1_latent"], kv[1][0])
        assert found["layer_2_value"].dtype == np.float32
        assert found["layer_2_value"].tobytes() == kv[2][1].tobytes()


def test_what_cannot_be_written_costs_that_dump_only(tmp_path, caplog):
    store = MemoryStore()
    dumper = Dumper(tmp_path, store, rank=0)
    (tmp_path / f"{KEY}_decode.tmp").mkdir()
    dumper.dump(KEY, BLOCKS, TOKENS, side="decode")
    dumper.dump(key_of(2), BLOCKS, TOKENS, side="prefill")
    dumper.stop()
    assert [path.name for path in tmp_path.glob("*.npz")] == [f"{key_of(2)}_prefill.npz"]
    assert f"KV of {KEY}_decode not dumped" in caplog.text


def test_too_many_waiting_dumps_are_dropped(tmp_path, monkeypatch, caplog):
    """The writer does not get to it: the engine does not wait."""
    monkeypatch.setattr(dumps, "_MAX_WAITING", 2)
    monkeypatch.setattr(Dumper, "_run", lambda self: None)
    dumper = Dumper(tmp_path, MemoryStore(), rank=0)
    for number in range(3):
        dumper.dump(key_of(number), BLOCKS, TOKENS, side="prefill")
    assert f"KV of {key_of(2)} not dumped: 2 dumps wait" in caplog.text


# The proxy


def test_the_proxy_is_told_at_once_and_told_again_after_it_restarted(monkeypatch):
    monkeypatch.setattr("ppd_connector.announcer.PERIOD_S", 0.05)
    announcement = {"type": "P", "http_address": "h:1", "zmq_address": "h:2", "ppd": True}
    port, announcer = 0, None
    for _ in range(2):
        with zmq.Context() as context, context.socket(zmq.ROUTER) as proxy:  # its end frees the port for certain
            proxy.setsockopt(zmq.LINGER, 0)
            proxy.setsockopt(zmq.RCVTIMEO, int(LIMIT_S * 1000))
            proxy.bind(f"tcp://127.0.0.1:{port or '*'}")
            port = int(proxy.get_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
            if announcer is None:
                announcer = Announcer(f"127.0.0.1:{port}", announcement)
                announcer.start()
            for _ in range(2):
                identity, payload = proxy.recv_multipart()
                assert (identity, msgpack.decode(payload)) == (b"h:2", announcement)
    announcer.stop()
    assert not announcer._thread.is_alive()
