"""What is known of one request while it is served. State without behaviour; `serving.py` changes it."""

from __future__ import annotations

from collections.abc import Callable

from ppd_core.policy.plan import Plan
from ppd_proxy.request.attempt import Attempt
from ppd_proxy.request.exchange import Exchange
from ppd_proxy.request.record import Record
from ppd_proxy.request.request import Call, Request
from ppd_wire.answers.prompt_counts import PromptCheck
from ppd_wire.dialects.dialects import HandedOver

_NONE: frozenset[str] = frozenset()


class Ongoing:
    """`on_end` is told when nothing of the request is left, with the fault of ours that ended it, if one did."""

    __slots__ = (
        "attempt", "broken_by", "call", "check", "doubted", "exchange", "handed", "is_complete", "on_end", "record",
        "request", "tops",
    )  # fmt: skip

    def __init__(
        self, call: Call, record: Record, exchange: Exchange, on_end: Callable[[Exception | None], None]
    ) -> None:
        self.call = call
        self.record = record
        self.exchange = exchange
        self.on_end = on_end
        self.request: Request | None = None
        """None until it was read."""
        self.attempt: Attempt | None = None
        """The last one."""
        self.handed: HandedOver | None = None
        """What the last prefill leg handed over; another attempt may use it."""
        self.check: PromptCheck | None = None
        """The open decode leg's, behind a prefill leg."""
        self.doubted = _NONE
        """Engines of pairs whose legs rendered two prompts."""
        self.tops = 0
        """How many of the likeliest tokens the decode leg was asked for."""
        self.is_complete = False
        """Its answer is, and was remembered."""
        self.broken_by: Plan | None = None
        """The plan of a sampled attempt whose logprobs were no numbers; it was tried again without asking."""

    @property
    def shown_id(self) -> str:
        """The client's own id, else the proxy's."""
        given = self.call.envelope.named.get(b"x-request-id")
        return given.decode("latin-1") if given else self.record.request_id
