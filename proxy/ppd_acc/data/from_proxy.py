"""The samples of a running proxy's accuracy check as a report: its journal, read over HTTP.

`GET /accuracy/samples` lists facts, `GET /accuracy/samples/<id>` has the rest of one; docs/accuracy.md says what is
kept. What a row cannot tell stays unknown:

- A sample that was scored has no answer of the baseline. Its baseline side has the target's tokens, with the baseline's
  logprobs of them. Its first difference is the first token that is not the baseline's best: how much likelier the best
  one is bounds the shift, which token that is was not kept.
- Of a sampled answer a token that is not the best is no difference.
- Without token ids (storage `hashes` or `none`) there are counts only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from ppd_acc.ask.access import Access
from ppd_acc.ask.engines import Engine, EngineTrouble, engines
from ppd_acc.data.report import EngineInfo, Flip, Forced, Noise, Report, Sample, Side, Status
from ppd_acc.data.totals import totals_of
from ppd_acc.outcome import Trouble
from ppd_acc.views import counted
from ppd_accuracy.answers.said import Difference

LIMIT_SAMPLES = 1000
_PAGE_SAMPLES = 500
UNKNOWN_TOKEN = "?"
"""Stands for each token of a replayed answer that the journal does not hold, so that lengths are right."""


class JournalRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the proxy tells of one sample (ppd_accuracy/verdicts/rows.py), NaN as null, without what its storage does
    not keep."""

    sample_id: str
    seq: int = 0
    at: float = 0.0
    model: str = ""
    route: str = ""
    pair: str | None = None
    turn: int | None = None
    reason: str = ""
    method: Literal["score", "replay"] = "score"
    outcome: str = ""
    category: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    max_delta: float | None = None
    mean_delta: float | None = None
    threshold: float | None = None
    noise_samples: int | None = None
    finish_reason: str | None = None
    transfer: dict[str, Any] | None = None
    spread: dict[str, Any] | None = None
    error: str | None = None
    token_ids: list[int] | None = None
    candidate_logprobs: list[float | None] | None = None
    baseline_logprobs: list[float | None] | None = None
    ranks: list[int] | None = None
    margins: list[float | None] | None = None
    replay: dict[str, Any] | None = None
    body: str | None = None
    text: str | None = None


class _Page(msgspec.Struct):
    samples: list[JournalRow]


async def read_proxy(url: str, access: Access, limit: int) -> Report:
    """At most `limit` of the newest samples, oldest first. Raises Trouble."""
    async with engines(access, url) as (proxy,):
        summary = await _get(proxy, "/accuracy")
        listed, has_more = await _listed(proxy, limit)
        rows = await asyncio.gather(*(_whole(proxy, row) for row in listed))
        figures = await _get(proxy, "/accuracy/noise")
    samples = [sample_of(row) for row in reversed(rows)]
    baselines = summary.get("baselines") or [None]
    model = next((row.model for row in rows if row.model), None)
    return Report(
        tool="ppd-proxy",
        created_at=max((row.at for row in rows), default=0.0),
        settings={
            "from_proxy": url,
            "limit": limit,
            "has_more": has_more,
            "outcomes": summary.get("outcomes"),
            "scopes": summary.get("scopes"),
        },
        baseline=EngineInfo(url=str(baselines[0]), model=model) if baselines[0] else None,
        target=EngineInfo(url=url, model=model),
        noise=noise_of(figures.get("noise") or ()),
        totals=totals_of(each.status for each in samples),
        samples=samples,
    )


async def with_sample(report: Report, sample_id: str, url: str, access: Access) -> Report:
    """The report, and in it this sample of the proxy, however old it is. As it is where there is no such one."""
    if any(sample.sample_id == sample_id for sample in report.samples):
        return report
    async with engines(access, url) as (proxy,):
        row = await _whole(proxy, JournalRow(sample_id=sample_id))
    samples = [sample_of(row), *report.samples] if row.seq else report.samples
    return msgspec.structs.replace(report, samples=samples)


async def _listed(proxy: Engine, limit: int) -> tuple[list[JournalRow], bool]:
    """The newest rows first, and whether there are older ones."""
    found: dict[str, JournalRow] = {}
    before = ""
    while len(found) <= limit:
        asked = min(_PAGE_SAMPLES, limit + 1 - len(found))
        told = await proxy.get(f"/accuracy/samples?limit={asked}{before}")
        try:
            page = msgspec.convert(told, _Page).samples
        except msgspec.ValidationError as error:
            raise Trouble(f"{proxy.url}/accuracy/samples: not a proxy's samples: {error}") from None
        found |= {row.sample_id: row for row in page}
        if len(page) < asked:
            break
        before = f"&before={page[-1].seq}"
    rows = list(found.values())
    return rows[:limit], len(rows) > limit


async def _whole(proxy: Engine, row: JournalRow) -> JournalRow:
    """With its contents; as it was listed where the journal has dropped it meanwhile."""
    path = f"/accuracy/samples/{quote(row.sample_id, safe='')}"
    try:
        return msgspec.convert(await proxy.get(path), JournalRow)
    except EngineTrouble as trouble:
        if trouble.reason == "status_404":
            return row
        raise
    except msgspec.ValidationError as error:
        raise Trouble(f"{proxy.url}{path}: not a proxy's sample: {error}") from None


async def _get(proxy: Engine, path: str) -> dict[str, Any]:
    told = await proxy.get(path)
    if not isinstance(told, dict):
        raise Trouble(f"{proxy.url}{path}: {type(told).__name__} instead of an object; is it a ppd-proxy?")
    return told


def noise_of(keys: Sequence[Mapping[str, Any]]) -> Noise:
    """The proxy's noise floor over all kinds of requests: its largest difference, and its largest margin as shift."""
    figures = [figure for key in keys for figure in key.get("figures") or ()]
    deltas = [value for figure in figures for value in figure[2]]
    margins = [value for figure in figures for value in figure[3]]
    return Noise(
        answers=len(figures),
        tokens=sum(int(figure[0]) for figure in figures),
        largest_delta=max(deltas, default=None),
        largest_shift=max(margins, default=None),
    )


def sample_of(row: JournalRow) -> Sample:
    """One row as a sample of a report."""
    flip = _flip(row)
    known: Sequence[int | str] | None = row.token_ids
    tokens = [*(known if known is not None else [UNKNOWN_TOKEN] * (row.answer_tokens or 0))]
    logprobs = row.candidate_logprobs if row.token_ids is not None else None
    prompt, messages = _asked(row.body)
    return Sample(
        sample_id=row.sample_id,
        status=_status(row, flip),
        prompt=prompt,
        messages=messages,
        prompt_tokens=row.prompt_tokens,
        baseline=_baseline(row, tokens),
        target=Side(text=row.text or "", tokens=tokens, logprobs=logprobs or [], finish_reason=row.finish_reason),
        flip=flip,
        differences=[Difference(part="tool_calls")] if _has_other_tools(row) else [],
        compared_tokens=_compared(row, flip),
        mean_delta=row.mean_delta,
        max_delta=row.max_delta,
        max_delta_at=_largest_at(row),
        not_numbers=sum(each is None for each in row.candidate_logprobs or ()),
        forced=_forced(row),
        has_same_finish=bool(row.replay.get("has_same_finish", True)) if row.replay else True,
        error=(row.error or "the baseline could neither score nor replay it") if _is_error(row) else None,
        error_reason=row.outcome if _is_error(row) else None,
        tags=[tag for tag in (row.outcome, row.route, row.pair) if tag],
        metadata=_metadata(row),
    )


def _metadata(row: JournalRow) -> dict[str, Any]:
    names = (
        "at", "model", "route", "pair", "turn", "reason", "method", "outcome", "category", "threshold",
        "noise_samples", "transfer", "spread",
    )  # fmt: skip
    told = {name: getattr(row, name) for name in names}
    if row.error is not None:
        told["error"] = row.error
    return {name: value for name, value in told.items() if value is not None}


def _is_error(row: JournalRow) -> bool:
    return row.outcome in ("unscorable", "error")


def _has_other_tools(row: JournalRow) -> bool:
    return row.replay is not None and row.replay.get("has_same_tools") is False


def _status(row: JournalRow, flip: Flip | None) -> Status:
    """`drift` is equal tokens with other logprobs, unless a token differs too; then the proxy has judged its margin to
    be within the noise. The same tokens that were read as other tool calls are `real`. An outcome of a newer proxy is
    unclassified."""
    if _is_error(row):
        return "error"
    if row.outcome in ("exact", "drift") and _has_other_tools(row):
        return "real"
    if row.outcome == "drift":
        return "tie" if flip is not None else "equal"
    known: dict[str, Status] = {"exact": "equal", "tie": "tie", "diverged": "real"}
    return known.get(row.outcome, "unclassified")


def _flip(row: JournalRow) -> Flip | None:
    """The first difference, where there is one: a replay knows it, a score by the ranks of a greedy answer."""
    if row.outcome in ("exact", "unscorable", "error") or (row.outcome == "drift" and not _is_greedy(row)):
        return None
    if row.replay is not None and row.method == "replay":
        told = row.replay.get("first_difference")
        position = told if isinstance(told, int) else None
    else:
        ranks = row.ranks or ()
        position = next((place for place, rank in enumerate(ranks) if rank > 1), None) if _is_greedy(row) else None
    if position is None:
        return None
    margin = row.margins[position] if row.margins is not None and position < len(row.margins) else None
    ids = row.token_ids or []
    return Flip(
        position=position,
        target_token=ids[position] if position < len(ids) else None,
        baseline_margin=margin,
        shift=margin,
        is_bound=True,
    )


def _is_greedy(row: JournalRow) -> bool:
    """A tie is said of greedy answers only. Otherwise the request tells; without it an answer counts as greedy."""
    if row.outcome == "tie":
        return True
    fields = _fields(row.body)
    temperature = fields.get("temperature", 1.0) if fields else 0.0
    return isinstance(temperature, int | float) and temperature < 1e-5


def _compared(row: JournalRow, flip: Flip | None) -> int:
    """A score compares every token, a replay those before the first difference."""
    if row.method == "replay" and flip is not None:
        return flip.position
    return len(row.baseline_logprobs or ()) or row.answer_tokens or 0


def _baseline(row: JournalRow, tokens: list[int | str]) -> Side:
    if row.method == "score":
        known = row.token_ids is not None and row.baseline_logprobs is not None
        is_whole = known and len(row.baseline_logprobs or ()) == len(tokens)
        return Side(tokens=tokens, logprobs=row.baseline_logprobs or []) if is_whole else Side()
    replay = row.replay or {}
    shared, change = replay.get("prefix_tokens"), replay.get("length_delta")
    if not isinstance(shared, int) or not isinstance(change, int):
        return Side()
    rest = max(0, (row.answer_tokens or 0) - change - shared)
    cut = "length" if replay.get("is_censored") and row.finish_reason != "length" else None
    same = row.finish_reason if replay.get("has_same_finish") else cut
    return Side(tokens=[*tokens[:shared], *[UNKNOWN_TOKEN] * rest], finish_reason=same)


def _deltas(row: JournalRow) -> list[float]:
    pairs = zip(row.candidate_logprobs or (), row.baseline_logprobs or (), strict=False)
    return [math.nan if mine is None or theirs is None else mine - theirs for mine, theirs in pairs]


def _largest_at(row: JournalRow) -> int | None:
    sizes = [-1.0 if math.isnan(each) else abs(each) for each in _deltas(row)]
    return sizes.index(max(sizes)) if sizes and max(sizes) >= 0 else None


def _forced(row: JournalRow) -> Forced | None:
    """A score is teacher forcing: the baseline's prefill over the target's tokens."""
    deltas = _deltas(row)
    finite = [each for each in deltas if not math.isnan(each)]
    if row.method != "score" or not finite or not row.ranks:
        return None
    sizes = [abs(each) for each in finite]
    return Forced(
        tokens=len(deltas),
        mean_delta=math.fsum(sizes) / len(sizes),
        max_delta=max(sizes),
        max_delta_at=_largest_at(row) or 0,
        likelihood_delta=math.fsum(finite),
        token_accuracy=sum(rank <= 1 for rank in row.ranks) / len(row.ranks),
        not_numbers=len(deltas) - len(finite),
    )


def _asked(body: str | None) -> tuple[str | None, list[dict[str, Any]] | None]:
    """The prompt, or the conversation, of a request that was kept."""
    fields = _fields(body)
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if isinstance(messages, list) and all(isinstance(each, dict) for each in messages):
        return None, messages
    return (prompt, None) if isinstance(prompt, str) else (None, None)


def _fields(body: str | None) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(body or "{}")
    except msgspec.DecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def notes_of(report: Report) -> tuple[str, ...]:
    """What a reader of a proxy's report must know; nothing of other reports."""
    if "from_proxy" not in report.settings:
        return ()
    notes = []
    if report.settings.get("has_more"):
        notes.append(f"the proxy has more than these {len(report.samples)} samples; --limit reads more")
    drifted = sum("drift" in sample.tags and sample.status == "equal" for sample in report.samples)
    if drifted:
        some = counted(drifted, "sample has", "samples have")
        notes.append(f"{some} equal tokens, but logprobs beyond the noise (drift)")
    if not any(sample.target.logprobs for sample in report.samples) and report.samples:
        notes.append("the proxy's journal keeps no tokens; --journal-storage tokens or text does")
    return tuple(notes)
