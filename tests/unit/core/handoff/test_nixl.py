"""What NIXL states about itself, and which prefill answers are fit for a decode engine."""

import json

import pytest
from tests.support.builders import KEY, decode, prefill

from ppd_core.handoff.nixl import NIXL

# A prefill answer of vLLM 0.32.
PARAMS = {
    "do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": [[1, 2, 3]],
    "remote_engine_id": "de2720fe", "remote_request_id": "cmpl-abc123-0-8afc829d", "remote_host": "127.0.0.1",
    "remote_port": 15600, "tp_size": 1, "remote_blocks_expiry_time": None, "transfer_mode": "pull",
}  # fmt: skip


def check(**changes):
    params = {name: value for name, value in {**PARAMS, **changes}.items() if value is not ...}
    return NIXL.check_params(json.dumps(params).encode())


def test_nixl_asks_the_prefill_engine_for_a_remote_decode():
    assert json.loads(NIXL.prefill_params) == {
        "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
        "remote_host": None, "remote_port": None,
    }  # fmt: skip
    assert NIXL.takes_params


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


def test_both_legs_carry_the_attempts_own_id():
    assert NIXL.request_id(prefill(), decode(), KEY, 100) == KEY
