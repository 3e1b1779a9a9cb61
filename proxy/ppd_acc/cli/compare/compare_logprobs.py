"""compare-logprobs: the same prompt on two engines; are the numbers behind the tokens the same, too?

Judged against the noise floor: equal texts whose logprobs are further apart than the baseline is from itself are
different. Behind the first different token the target's own tokens are scored by the baseline (teacher forcing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table

from ppd_acc.ask.access import Sampling, Terms
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import Engine, EngineTrouble, engines_by_side
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.ask.question import Question
from ppd_acc.cli.compare.compare_output import headline
from ppd_acc.cli.flags import asked_prompt, between, node_flags, pair_flags, prompt_text, terms_flags
from ppd_acc.cli.options import value
from ppd_acc.compare.compare import compare_answers, forced_of, noise_of
from ppd_acc.compare.floors import terms_floor
from ppd_acc.compare.positions import DEFAULT_ALPHA, Comparison, Row, comparison_of, judge
from ppd_acc.outcome import Exit, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import nats, noise_line, number
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_wire.answers.scored import Position

_NOISE_ANSWERS = 8
_SHOWN_DIVERGENCE = 0.1
_SHOWN_ROWS = 64
_NODE_HELP = "asked by itself, too, and shown beside the target; not a stock P2pNccl engine, which ends on that"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    pair: Mapping[str, str] = pair_flags()
    prompt: str = value("TEXT", "asked on both engines", prompt_text, read=asked_prompt)
    kl_threshold: float | None = value(
        "NATS", f"a limit of the KL divergence per token; without it, more than {_SHOWN_DIVERGENCE} is only marked",
        between(0, float("inf")),
    )  # fmt: skip
    alpha: float = value(
        "P", "chance at which differences beyond the noise floor count", between(1e-9, 0.5), DEFAULT_ALPHA
    )
    nodes: Mapping[str, str] = node_flags(_NODE_HELP, _NODE_HELP)
    terms: Terms = terms_flags(_NOISE_ANSWERS)


async def run(options: Options, surroundings: Surroundings) -> Result:
    question = Question(prompt=options.prompt)
    async with engines_by_side(options.terms.access, {**options.pair, **options.nodes}) as asked:
        floor = await terms_floor(asked[0], [question], options.terms, surroundings)
        comparisons, notes = await _compared(asked, question, options.terms.sampling, floor)
    return with_model_notes(_result(comparisons, floor, options, notes), *asked)


async def _compared(
    asked: Sequence[Engine], question: Question, sampling: Sampling, floor: ReplayNoise
) -> tuple[list[Comparison], list[str]]:  # fmt: skip
    answers = await asyncio.gather(*(engine.ask(question, sampling) for engine in asked))
    for engine, answer in zip(asked, answers, strict=True):
        if answer.tokens and (answer.unit == "words" or not answer.logprobs):
            raise EngineTrouble("bad_answer", f"{engine.url} gives no logprobs; this command compares nothing else")
    comparisons, notes = [], []
    for engine, answer in zip(asked[1:], answers[1:], strict=True):
        sample = compare_answers("0", question, answers[0], answer, floor, is_greedy=sampling.is_greedy)
        try:
            positions = await _forced(asked[0], answers[0], answer, sampling)
        except EngineTrouble as trouble:
            positions = []
            notes.append(f"nothing is scored by teacher forcing: {trouble}")
        sample.forced = forced_of(answer.logprobs, positions) if positions else None
        comparisons.append(comparison_of(engine.side, sample, answers[0], answer, positions, sample.forced, floor))
    return comparisons, list(dict.fromkeys(notes))


async def _forced(baseline: Engine, own: Answer, answer: Answer, sampling: Sampling) -> list[Position]:
    """The answer's tokens in the baseline's prefill; nothing where an engine tells no ids."""
    if not answer.ids or not own.prompt_token_ids:
        return []
    return await baseline.score(own.prompt_token_ids, answer.ids, top=max(2, sampling.top_k))


def _result(comparisons: list[Comparison], floor: ReplayNoise, options: Options, notes: list[str]) -> Result:
    target, alpha, limit = comparisons[0], options.alpha, options.kl_threshold
    verdicts = [judge(each, floor, alpha=alpha, limit=limit) for each in comparisons]
    code, reasons = verdicts[0]
    lines: list[RenderableType] = [f"{_OUTCOMES[code]}: {reason}" for reason in reasons]
    lines += [headline(target.sample), noise_line(floor), _quantiles(floor)]
    lines.append(_summary(comparisons, verdicts))
    lines.append(_table(target, _SHOWN_DIVERGENCE if limit is None else limit))
    if len(target.rows) > _SHOWN_ROWS:
        notes = [*notes, f"the table shows {_SHOWN_ROWS} of {len(target.rows)} tokens; --json FILE has all of them"]
    data: dict[str, Any] = {
        "sampling": asdict(options.terms.sampling),
        "alpha": alpha,
        "kl_threshold": limit,
        "noise": msgspec.to_builtins(noise_of(floor)),
        "sample": msgspec.to_builtins(target.sample),
        "comparisons": [
            {**each.data(), "outcome": outcome.name.lower(), "reasons": why, "status": each.sample.status,
             "max_delta": each.sample.max_delta, "mean_delta": each.sample.mean_delta,
             "forced": msgspec.to_builtins(each.forced)}
            for each, (outcome, why) in zip(comparisons, verdicts, strict=True)
        ],
    }  # fmt: skip
    return Result(exit=code, data=data, view=tuple(lines), notes=tuple(notes))


_OUTCOMES = ("equal", "different", "usage", "trouble", "inconclusive")


def _quantiles(floor: ReplayNoise) -> str:
    quantiles = [f"{name} {nats(value)}" for name, value in (noise_of(floor).delta_quantiles or {}).items()]
    return f"healthy |delta|: {', '.join(quantiles)}" if quantiles else ""


def _summary(comparisons: list[Comparison], verdicts: list[tuple[Exit, list[str]]]) -> Table:
    table = Table("engine", "outcome", "equal tokens", "mean |delta|", "max |delta|", "max KL", "forced mean",
                  "forced max", "token accuracy", "beyond the floor", "p")  # fmt: skip
    for each, (code, _) in zip(comparisons, verdicts, strict=True):
        sample, forced = each.sample, each.forced
        table.add_row(
            each.name, _OUTCOMES[code], str(sample.compared_tokens), nats(sample.mean_delta), nats(sample.max_delta),
            number(each.largest_divergence), nats(forced.mean_delta if forced else None),
            nats(forced.max_delta if forced else None), number(forced.token_accuracy if forced else None),
            f"{max(each.decoded.beyond, each.prefilled.beyond)}", number(each.chance),
        )  # fmt: skip
    return table


def _table(comparison: Comparison, limit: float) -> Table:
    table = Table("token", "baseline", "target", "lp baseline", "lp target", "delta", "KL", "lead over the next",
                  "rank", "forced", "forced delta", "forced rank")  # fmt: skip
    rows = comparison.rows
    if len(rows) > _SHOWN_ROWS:
        rows = sorted(sorted(rows, key=_size, reverse=True)[:_SHOWN_ROWS], key=lambda row: row.position)
    for row in rows:
        is_marked = row.divergence is not None and not row.divergence <= limit
        is_flip = comparison.sample.flip is not None and row.position == comparison.sample.flip.position
        table.add_row(
            f"{row.position}{' <' if is_flip else ''}", _token(row.baseline_token), _token(row.target_token),
            number(row.baseline_logprob), number(row.target_logprob), number(row.delta),
            number(row.divergence) + (" !" if is_marked else ""),
            f"{number(row.baseline_margin)} / {number(row.target_margin)}",
            f"{row.baseline_rank or '-'} / {row.target_rank or '-'}", number(row.forced_logprob),
            number(row.forced_delta), str(row.forced_rank or "-"),
        )  # fmt: skip
    return table


def _size(row: Row) -> float:
    """How much there is to see in a row: the larger of its differences."""
    return max(abs(row.delta or 0.0), abs(row.forced_delta or 0.0), row.divergence or 0.0)


def _token(token: object) -> str:
    return "-" if token is None else str(token)
