"""What engines that share one KV store state about themselves."""

from tests.support.builders import KEY, decode, prefill

from ppd_core.handoff.shared_store import NONE


def test_a_shared_store_holds_nothing_for_a_peer():
    assert (NONE.holds_kv, NONE.cancel_prefill, NONE.prefill_params, NONE.takes_params) == (False, "abort", None, False)
    assert NONE.is_direct_safe(decode(handoff="none"))


def test_both_legs_carry_the_attempts_own_id():
    assert NONE.request_id(prefill(), decode(), KEY, 100) == KEY
