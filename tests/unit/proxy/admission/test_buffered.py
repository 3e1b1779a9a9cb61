import pytest

from ppd_proxy.admission.buffered import Buffered
from ppd_wire.errors import NoRoute


def test_new_work_is_refused_only_while_more_is_held_than_the_limit():
    buffered = Buffered(100)
    buffered.hold(100)
    buffered.check()
    buffered.hold(1)
    with pytest.raises(NoRoute) as refused:
        buffered.check()
    assert (refused.value.status, refused.value.reason) == (503, "buffers_full")
    assert "101 bytes" in refused.value.message
    assert "no more than 100 (--max-buffered-bytes)" in refused.value.message
    buffered.free(1)
    buffered.check()


def test_what_clients_have_not_taken_counts_too():
    buffered = Buffered(100)
    buffered.hold(60)
    buffered.see_unsent(41)
    with pytest.raises(NoRoute, match="101 bytes"):
        buffered.check()
    buffered.see_unsent(0)
    buffered.check()
