"""What the director and the fleet report, as metrics and log lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

from ppd_core.fleet.fleet import Change
from ppd_core.policy.distrust import Pair
from ppd_core.policy.plan import Mode, Route
from ppd_proxy.request.record import Record
from ppd_proxy.telemetry.logs import RequestLog
from ppd_proxy.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Telemetry:
    """`wall_clock` gives seconds since 1970, for log lines only."""

    def __init__(self, metrics: Metrics, request_log: RequestLog, wall_clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._request_log = request_log
        self._wall_clock = wall_clock

    def decided(self, mode: Mode, route: Route, reason: StrEnum) -> None:
        self._metrics.decided(mode, route, reason)

    def finished(self, record: Record) -> None:
        self._metrics.finished(record)
        self._request_log.add(record, self._wall_clock())

    def retried(self, *, is_allowed: bool) -> None:
        self._metrics.retried(is_allowed=is_allowed)

    def prompts_compared(self, result: str) -> None:
        self._metrics.prompts_compared(result)

    def prompts_differ(self, pair: Pair, why: str, *, is_distrusted: bool) -> None:
        log.warning("prompts differ prefill=%s decode=%s why=%s", *pair, why)
        if is_distrusted:
            log.warning("pair distrusted prefill=%s decode=%s: its engines go on rendering two prompts", *pair)

    def prompts_trusted(self, pairs: tuple[Pair, ...], why: str) -> None:
        for pair in pairs:
            log.warning("pair trusted prefill=%s decode=%s why=%s", *pair, why)

    def kv_released(self) -> None:
        self._metrics.kv_released()

    def kv_stranded(self) -> None:
        self._metrics.kv_stranded()

    def client_stalled(self) -> None:
        """A client that took nothing of its answer for too long was cut off."""
        self._metrics.client_stalled()
        log.info("client cut off: it took nothing of its answer for --write-timeout-s")

    def fleet_changed(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            self._metrics.engine_changed(change)
            engine = change.engine
            level = logging.WARNING if change.what in ("down", "unhealthy") else logging.INFO
            log.log(
                level, "engine %s id=%s role=%s handoff=%s why=%s",
                change.what, engine.id, engine.role, engine.handoff, change.why,
            )  # fmt: skip
