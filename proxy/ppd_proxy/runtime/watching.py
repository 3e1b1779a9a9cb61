"""Puts the accuracy check together from the configuration, and gives it its hold on the rest of the proxy."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry

from ppd_accuracy.verdicts.noise import BaselineNoise
from ppd_accuracy.verdicts.verdicts import Tolerances, Verdicts
from ppd_core.conversation.conversations import Conversations
from ppd_core.conversation.history import Home
from ppd_core.fleet.address import parse_url
from ppd_core.fleet.drafts import WINDOW_S
from ppd_core.fleet.engine import Engine
from ppd_core.fleet.fleet import Fleet
from ppd_core.fleet.readings import Readings
from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.guard import ACTION_KINDS, Guard, GuardSettings
from ppd_proxy.config import sections
from ppd_proxy.control import Control
from ppd_proxy.shadow.baseline import Baselines
from ppd_proxy.shadow.canary import Canary
from ppd_proxy.shadow.journal import Journal
from ppd_proxy.shadow.seeds import Seeds
from ppd_proxy.shadow.service import Accuracy
from ppd_proxy.shadow.shadow import Budget, Shadow
from ppd_proxy.telemetry.shadow import ShadowMetrics

_NOISE_CAPACITY = 10_000


class Reins:
    """The guard's hold on routing and conversations."""

    def __init__(self, control: Control, conversations: Conversations, fleet: Fleet) -> None:
        self._control = control
        self._conversations = conversations
        self._fleet = fleet

    def set_distrust(self, distrust: Distrust) -> None:
        self._control.guard(distrust)

    def forget_homes(self, is_bad: Callable[[Home], bool]) -> int:
        return self._conversations.forget_homes(is_bad)

    def engines(self) -> Iterable[str]:
        return [engine.id for engine in self._fleet.engines()]

    def decode_engines(self) -> list[str]:
        return [engine.id for engine in self._fleet.view.decode]

    def pairs(self) -> Iterable[tuple[str, str]]:
        view = self._fleet.view
        return [
            (prefill.id, decode.id)
            for decode in view.decode
            for prefill in view.prefill
            if HANDOFFS[decode.handoff].can_pair(prefill, decode)
        ]


def baseline_engines(settings: sections.Shadow) -> tuple[Engine, ...]:
    """The baselines as engines whose metrics can be read; they are in no fleet and serve no client."""
    return tuple(
        Engine(id=parse_url(url)[0], url=url, role="aggregated", handoff="none", state="up", source="static")
        for url in settings.baseline
    )


def make_accuracy(
    settings: sections.Shadow,
    reins: Reins,
    readings: Readings,
    session: aiohttp.ClientSession,
    registry: CollectorRegistry,
    clock: Callable[[], float],
) -> Accuracy | None:
    """None without a baseline: nothing is sampled then, and no series says that all is well."""
    if not settings.baseline:
        return None
    tolerances = Tolerances(false_alarms=settings.shadow_false_alarms, tolerance=settings.shadow_tolerance)
    verdicts = Verdicts(BaselineNoise(least=settings.shadow_noise_samples, capacity=_NOISE_CAPACITY), tolerances)
    telemetry = ShadowMetrics(registry, verdicts=verdicts.verdicts, guard_actions=ACTION_KINDS)
    shadow = Shadow(
        Budget(
            rate=settings.shadow_rate,
            method=settings.shadow_method,
            concurrency=settings.shadow_concurrency,
            queue=settings.shadow_queue,
            max_body_bytes=settings.shadow_max_body_bytes,
            noise_share=settings.shadow_noise_share,
            top_logprobs=settings.shadow_top_logprobs,
        ),
        Baselines(session, settings.baseline, timeout_s=settings.shadow_timeout_s, key=settings.baseline_api_key),
        verdicts,
        Seeds(random.SystemRandom().random),
        telemetry,
        clock=clock,
    )
    wait_s = settings.guard_retry_s or None
    guard = Guard(
        GuardSettings(mode=settings.guard, cooldown_s=settings.guard_cooldown_s, retry_s=wait_s),
        epoch_base=secrets.token_hex(4),
    )
    canary = Canary(readings.draft_gain, window_s=WINDOW_S, false_alarms=settings.shadow_false_alarms)
    baseline_ids = [engine.id for engine in baseline_engines(settings)]
    return Accuracy(
        shadow,
        guard,
        settings.guard,
        reins,
        baselines=settings.baseline,
        clock=clock,
        on_action=telemetry.guard_acted,
        kv_failures=readings.damaged_transfers,
        draft_acceptance=lambda: canary.look(
            reins.decode_engines(), baseline_ids, clock()
        ),
    )


async def open_journal(settings: sections.Shadow, accuracy: Accuracy, wall_clock: Callable[[], float]) -> None:
    """Raises ConfigError for a file that is no journal of ours."""
    if settings.journal is not None:
        journal = await Journal.open(
            Path(settings.journal),
            max_rows=settings.journal_max_rows,
            max_age_s=settings.journal_max_age_s,
            storage=settings.journal_storage,
            on_dropped=accuracy.shadow.drop,
        )
        accuracy.keep(journal, wall_clock)
