"""What is known of each engine: the figures it tells of itself, and what finished requests add to them.

The one owner of it: the scrape loop and finished requests feed it; metrics, guard and canary ask it. Fetches nothing
and reads no clock (`now` is monotonic seconds). An engine's restart is told by its own counters, not by its
incarnation: one that was down for a while need not have restarted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ppd_core.fleet.drafts import DraftWindow
from ppd_core.fleet.engine import Engine, HandoffName
from ppd_core.fleet.gains import delta, is_restarted
from ppd_core.fleet.load import Load
from ppd_core.fleet.prompt_tokens import PromptTokens, TokenLedger, from_usage
from ppd_core.fleet.transfers import SEVERAL, Transfers, by_prefill
from ppd_wire.metrics.scraped import UNKNOWN, EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters

_DAMAGED = ("checksum", "mismatch")


class FinishedRequest(Protocol):
    """What counts here of a finished request, as the proxy's record of it has it."""

    decode_id: str | None
    prefill_id: str | None
    handoff: HandoffName | None
    choices: int
    prompt_tokens: int | None
    cached_tokens: int | None
    has_kv: bool | None
    decode_opened_at: float | None
    first_token_at: float | None

    @property
    def route(self) -> str: ...


@dataclass(slots=True, kw_only=True)
class _Known:
    """What is known of one engine since its first reading."""

    latest: EngineFigures = UNKNOWN
    """The newest reading, UNKNOWN when the newest attempt failed."""
    base: EngineFigures = UNKNOWN
    """The newest reading that succeeded: the next one's gain counts from here."""
    read_at: float
    """When that was."""
    is_measured: bool = False
    """It has exported figures of transfers, or will from its first transfer on (our connector): they are never
    estimated, also not while it cannot be read."""
    ledger: TokenLedger = field(default_factory=TokenLedger)
    prefills: set[str] = field(default_factory=set)
    """Prefill engines that handed KV to it since `read_at`, as far as finished requests tell."""


class Readings:
    """`engines` gives the fleet's engines, `baselines` those that are read beside them: of these only drafts are known.
    Without `kv_bytes_per_token` no transfer is estimated. `is_scraping` says that readings will come."""

    def __init__(
        self,
        *,
        engines: Callable[[], Iterable[Engine]],
        load: Load,
        baselines: Callable[[], Iterable[Engine]] = tuple,
        kv_bytes_per_token: int | None = None,
        is_scraping: bool = True,
    ) -> None:
        self._engines = engines
        self._load = load
        self._baselines = baselines
        self._kv_bytes_per_token = kv_bytes_per_token
        self._is_scraping = is_scraping
        self._known: dict[str, _Known] = {}
        self._drafts: dict[str, DraftWindow] = {}
        self.prompt_tokens: defaultdict[tuple[str, ...], float] = defaultdict(float)
        """By route and source; a source is there from its first token on."""
        self.transfers = Transfers()

    # What comes in

    def finished(self, request: FinishedRequest) -> None:
        """Count a request's prompt tokens and, where nothing is measured, its KV transfer."""
        tokens, decode_id = request.prompt_tokens, request.decode_id
        if decode_id is None:
            return
        known = self._known.get(decode_id)
        tells_sources = known is not None and known.base.tells_sources
        if request.route == "pd" and request.has_kv is not False:
            self._handed_over(known, decode_id, request)
        if tokens is None:
            return
        if request.route == "pd" and tells_sources:
            return  # comes with the next reading
        if request.route == "pd" and request.has_kv is not False:
            split = PromptTokens(unknown=tokens)
        else:
            cached_tokens = request.cached_tokens if request.choices == 1 else None  # told for one choice only
            split = from_usage(tokens * request.choices, cached_tokens)
        self._count(request.route, split)
        if known is not None and tells_sources:
            known.ledger.add_other(split)

    def scraped(self, engine: Engine, figures: EngineFigures, now: float) -> None:
        """Take a reading; UNKNOWN if it failed. Engines that left meanwhile are ignored."""
        if any(each.id == engine.id for each in self._engines()):
            self._take(engine, figures, now)
        elif all(each.id != engine.id for each in self._baselines()):
            return
        if figures.spec is not None or engine.id in self._drafts:
            self._drafts.setdefault(engine.id, DraftWindow()).take(figures, now)

    def forget(self, engine_id: str) -> None:
        """The engine left the fleet."""
        self._known.pop(engine_id, None)
        self._drafts.pop(engine_id, None)
        self.transfers.forget(engine_id)

    # What is asked

    def latest(self) -> dict[str, EngineFigures]:
        """The newest reading by engine id, in order; UNKNOWN where the newest attempt failed."""
        ids = sorted(engine.id for engine in self._engines())
        return {engine_id: self._known[engine_id].latest for engine_id in ids if engine_id in self._known}

    def rates(self) -> dict[tuple[str, ...], float]:
        """Bytes per second by origin, prefill engine (its id, or SEVERAL) and decode engine."""
        ids = {engine.id for engine in self._engines()}
        return {
            (origin, prefill, decode_id): rate
            for decode_id, (origin, rates) in self.transfers.rates.items()
            for prefill, rate in rates.items()
            if decode_id in ids and (prefill in ids or prefill == SEVERAL)
        }

    def drafts(self) -> dict[str, DraftWindow]:
        """By engine id, baselines included; engines that do not speculate are not there."""
        ids = {engine.id for engine in (*self._engines(), *self._baselines())}
        return {engine_id: window for engine_id, window in self._drafts.items() if engine_id in ids}

    def draft_gain(self, engine_id: str) -> SpecCounters | None:
        """What an engine counted of its drafts in the last `WINDOW_S`; None while that is not known."""
        window = self._drafts.get(engine_id)
        return window.gain() if window is not None else None

    def damaged_transfers(self) -> int:
        """Transfers that connectors refused by checksum or mismatch, since the engines started, as they told last."""
        failures = (known.latest.connector.failures for known in self._known.values())
        return round(sum(count for each in failures for (_, reason), count in each.items() if reason in _DAMAGED))

    # What follows

    def _take(self, engine: Engine, figures: EngineFigures, now: float) -> None:
        self.transfers.close(engine.id)
        known = self._known.get(engine.id)
        if figures == UNKNOWN:
            if known is not None:
                known.latest = UNKNOWN
            return
        if known is None:
            known = self._known[engine.id] = _Known(read_at=now)
        gained = delta(known.base, figures)
        if is_restarted(known.base, figures):
            # What it counted between the last reading and its end is lost, so the old balances will never be settled.
            known.ledger = TokenLedger()
        known.latest = known.base = figures
        if engine.role == "decode" and gained.tells_sources:
            is_idle = not self._load.requests.get(engine.id)
            self._count("pd", known.ledger.settle(gained, is_idle=is_idle, now=now))
        if figures.tells_transfers or engine.is_ppd:
            known.is_measured = True
            self._measure(engine, known, gained)
        known.read_at = now

    def _measure(self, engine: Engine, known: _Known, gained: EngineFigures) -> None:
        ids = {each.zmq_address: each.id for each in self._engines()}
        kv_bytes = by_prefill(gained.connector.received_bytes, ids)
        seconds = by_prefill(gained.connector.received_s, ids)
        if gained.nixl_bytes and gained.nixl_transfer_s:
            # NIXL does not tell from where: that is known where only one prefill engine was used.
            prefills = known.prefills or {each.id for each in self._engines() if each.role == "prefill"}
            prefill = next(iter(prefills)) if len(prefills) == 1 else SEVERAL
            kv_bytes[prefill] += gained.nixl_bytes
            seconds[prefill] += gained.nixl_transfer_s
            known.prefills = set()
        self.transfers.measure(engine.id if engine.role == "decode" else None, kv_bytes, seconds)

    def _count(self, route: str, tokens: PromptTokens) -> None:
        if tokens.local_cache:
            self.prompt_tokens[route, "local_cache"] += tokens.local_cache
        if tokens.external_kv:
            self.prompt_tokens[route, "external_kv"] += tokens.external_kv
        if tokens.computed:
            self.prompt_tokens[route, "computed"] += tokens.computed
        if tokens.unknown:
            self.prompt_tokens[route, "unknown"] += tokens.unknown

    def _handed_over(self, known: _Known | None, decode_id: str, request: FinishedRequest) -> None:
        prefill_id, opened_at, first_at = request.prefill_id, request.decode_opened_at, request.first_token_at
        if known is not None and prefill_id is not None and opened_at is not None and opened_at >= known.read_at:
            known.prefills.add(prefill_id)
        if self._kv_bytes_per_token is None or not request.prompt_tokens or self._is_measured(known, request):
            return
        spent_s = first_at - opened_at if first_at is not None and opened_at is not None else 0.0
        self.transfers.estimate(decode_id, prefill_id, request.prompt_tokens * self._kv_bytes_per_token, spent_s)
        if not self._is_scraping:
            self.transfers.close(decode_id)

    def _is_measured(self, known: _Known | None, request: FinishedRequest) -> bool:
        """Before its first reading an engine with NIXL or our connector counts as measured: its figures will come."""
        if known is not None:
            return known.is_measured
        is_ppd = any(engine.is_ppd for engine in self._engines() if engine.id == request.decode_id)
        return self._is_scraping and (request.handoff == "nixl" or is_ppd)
