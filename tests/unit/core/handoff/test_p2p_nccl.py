"""What P2pNccl states about itself, and what its request ids tell."""

import pytest
from tests.support.builders import KEY, decode, prefill

from ppd_connector.wire import Tag, parse_tag
from ppd_core.handoff.p2p_nccl import P2P_NCCL as P2P


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
