"""What each handoff protocol states about itself."""

import json

import pytest
from tests.support.builders import KEY, decode, prefill

from ppd_connector.wire import Tag, parse_tag
from ppd_core.fleet.engine import HANDOFFS as NAMES
from ppd_core.handoff.registry import HANDOFFS

NIXL, P2P, NONE = HANDOFFS["nixl"], HANDOFFS["p2p_nccl"], HANDOFFS["none"]
# A prefill answer of vLLM 0.32.
PARAMS = {
    "do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": [[1, 2, 3]],
    "remote_engine_id": "de2720fe", "remote_request_id": "cmpl-abc123-0-8afc829d", "remote_host": "127.0.0.1",
    "remote_port": 15600, "tp_size": 1, "remote_blocks_expiry_time": None, "transfer_mode": "pull",
}  # fmt: skip


def check(**changes):
    params = {name: value for name, value in {**PARAMS, **changes}.items() if value is not ...}
    return NIXL.check_params(json.dumps(params).encode())


def test_every_handoff_is_registered_under_its_name():
    assert set(HANDOFFS) == set(NAMES)
    assert all(handoff.name == name for name, handoff in HANDOFFS.items())


@pytest.mark.parametrize("p", NAMES)
@pytest.mark.parametrize("d", NAMES)
def test_only_engines_of_the_same_handoff_pair(p, d):
    for handoff in HANDOFFS.values():
        can_pair = handoff.can_pair(prefill(handoff=p), decode(handoff=d))
        assert can_pair == (p == d == handoff.name)


def test_nixl_asks_the_prefill_engine_for_a_remote_decode():
    assert json.loads(NIXL.prefill_params) == {
        "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
        "remote_host": None, "remote_port": None,
    }  # fmt: skip
    assert NIXL.takes_params


def test_nixl_legs_carry_the_attempts_own_id():
    assert NIXL.request_id(prefill(), decode(), KEY, 100) == KEY
    assert NONE.request_id(prefill(), decode(), KEY, 100) == KEY


def test_nixl_frees_an_aborted_prefill_and_moves_untouched_kv():
    assert (NIXL.holds_kv, NIXL.cancel_prefill, NIXL.is_rebindable) == (True, "abort", True)
    assert NIXL.is_direct_safe(decode())


def test_a_real_prefill_answer_is_fit_for_a_decode_engine():
    assert check() is None
    assert check(remote_port=0) is None


@pytest.mark.parametrize(
    "name", ["remote_engine_id", "remote_request_id", "remote_block_ids", "remote_host", "remote_port"]
)
@pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
def test_a_prefill_answer_that_would_kill_the_decode_engine_is_refused(name, value):
    assert name in check(**{name: value})


def test_everything_missing_is_named_at_once():
    mistake = check(remote_host=..., remote_port=None)
    assert "remote_host" in mistake
    assert "remote_port" in mistake


def test_a_prefill_answer_that_asks_for_no_read_needs_no_address():
    assert check(do_remote_prefill=False, remote_host=None) is None


def test_white_space_in_a_prefill_answer_hides_nothing():
    raw = json.dumps({**PARAMS, "remote_host": None}, indent=2).replace("null", " null ").replace("true", " true ")
    assert "remote_host" in NIXL.check_params(raw.encode())


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"x"', b"{", b'{"do_remote_prefill":true,"\xff":1}'])
def test_parameters_that_are_no_object_are_refused(raw):
    assert NIXL.check_params(raw)


def test_p2p_nccl_names_both_engines_in_the_request_id():
    tag = P2P.request_id(prefill(handoff="p2p_nccl"), decode(handoff="p2p_nccl"), KEY, 0)
    assert tag == f"___prefill_addr_p1:21001___decode_addr_d1:21001_{KEY}"


@pytest.mark.parametrize("p", [False, True])
@pytest.mark.parametrize("d", [False, True])
def test_p2p_nccl_tells_what_is_held_only_where_both_engines_understand_it(p, d):
    producer, consumer = prefill(handoff="p2p_nccl", is_ppd=p), decode(handoff="p2p_nccl", is_ppd=d)
    tag = parse_tag(P2P.request_id(producer, consumer, KEY, 1792))
    assert tag == Tag(prefill="p1:21001", decode="d1:21001", key=KEY, held_tokens=1792 if p and d else 0)


def test_p2p_nccl_engines_pair_only_with_known_addresses():
    p, d = prefill(handoff="p2p_nccl"), decode(handoff="p2p_nccl")
    assert P2P.can_pair(p, d)
    assert not P2P.can_pair(prefill(handoff="p2p_nccl", zmq_address=None), d)
    assert not P2P.can_pair(p, decode(handoff="p2p_nccl", zmq_address=None))


def test_a_stock_p2p_nccl_consumer_takes_no_direct_request():
    assert not P2P.is_direct_safe(decode(handoff="p2p_nccl"))
    assert P2P.is_direct_safe(decode(handoff="p2p_nccl", is_ppd=True))


def test_p4_p2p_nccl_prefill_legs_finish_and_their_kv_belongs_to_one_engine():
    assert (P2P.holds_kv, P2P.cancel_prefill, P2P.is_rebindable) == (True, "finish", False)
    assert P2P.prefill_params is None
    assert not P2P.takes_params
    assert P2P.check_params(b"anything") is None


def test_a_shared_store_holds_nothing_for_a_peer():
    assert (NONE.holds_kv, NONE.cancel_prefill, NONE.prefill_params, NONE.takes_params) == (False, "abort", None, False)
    assert NONE.is_direct_safe(decode(handoff="none"))
