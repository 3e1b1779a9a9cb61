"""How long a request waits."""

from typing import get_args

from ppd_proxy.request.signals import Deadline, Patience


def test_each_deadline_has_its_time():
    patience = Patience(prefill_s=1.0, first_token_s=2.0, idle_s=3.0, release_s=4.0)
    assert [patience.of(deadline) for deadline in get_args(Deadline)] == [1.0, 2.0, 3.0, 4.0]
