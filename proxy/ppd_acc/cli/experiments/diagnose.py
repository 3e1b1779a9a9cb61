"""diagnose: which stage of a split deployment breaks?

Healthcheck, then the same prompts on an unsplit baseline and through each part: the first token alone (P-only), the
whole answer with cold caches (pd), the same again (warm), the second turn of the conversation (direct), the decode
engine by itself if it is named, and KV dumps if there are any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table

from ppd_acc.ask.access import Terms
from ppd_acc.ask.engines import Engine, engines_by_side
from ppd_acc.ask.health import Health, check_health, differences
from ppd_acc.ask.question import Question
from ppd_acc.ask.variations import variations
from ppd_acc.cli.engines.healthcheck import health_table
from ppd_acc.cli.experiments.kv_flags import add_kv_flags, dumps_of
from ppd_acc.cli.flags import add_terms_flags, between, node_flags, pair_flags, positive, terms_of
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flags, switch, value
from ppd_acc.cli.prompts import prompts_flags
from ppd_acc.compare.compare import noise_of
from ppd_acc.compare.floors import terms_floor
from ppd_acc.compare.pools import CONFIDENCE, verdict_data
from ppd_acc.compare.positions import DEFAULT_ALPHA
from ppd_acc.experiments.kv_stage import Dumps, KvOutcome, check_kv
from ppd_acc.experiments.stages import Asking, Parts, StageResult, judge_stages, run_stages
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress, empty_pairs, noise_line, number, percent, span
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.statistics.intervals import difference
from ppd_accuracy.verdicts.diagnosis import Advice, Conditions, Located, decision_guide, locate

_REPEATS, _NOISE_ANSWERS = 4, 24
_STAGES = 5
_NO_P2P = "not a stock P2pNccl engine, which ends on a request without a tag"
_NAMES = (
    ("prefill", "P-only: first token"), ("pd", "pd: cold caches"), ("warm", "pd: the same again, warm"),
    ("direct", "direct: second turn"), ("decode", "D-only: the decode engine"), ("aggregated", "unsplit engines"),
)  # fmt: skip
_CONTRASTS = (("pd", "prefill"), ("warm", "pd"), ("direct", "pd"), ("decode", "prefill"))


def _terms(given: Given) -> Terms:
    terms = terms_of(_NOISE_ANSWERS, given)
    if not terms.sampling.is_greedy:
        raise Mistake(f"--temperature is {terms.sampling.temperature:g}; stages are compared greedily, with 0")
    return terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    pair: Mapping[str, str] = pair_flags()
    prompts: Sequence[str] = prompts_flags("asked in every stage")
    repeats: int = value(
        "N", "questions per prompt: the prompt, and variations with another first line", positive, _REPEATS
    )
    nodes: Mapping[str, str] = node_flags(
        f"asked for the first token, instead of the target; {_NO_P2P}", f"asked by itself, too; {_NO_P2P}"
    )
    alpha: float = value(
        "P", "chance at which logprobs beyond the noise floor count, over all stages", between(1e-9, 0.5), DEFAULT_ALPHA
    )
    salt: str | None = value("TEXT", "keeps caches of this run apart (default: the time)")
    no_cache_salt: bool = switch("for engines that refuse cache_salt: caches may not be cold then")
    dumps: Dumps | None = flags(add_kv_flags, dumps_of)
    terms: Terms = flags(partial(add_terms_flags, _NOISE_ANSWERS), _terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Everything that was measured."""

    healths: Sequence[Health]
    floor: ReplayNoise
    stages: Sequence[StageResult]
    troubles: Sequence[str]
    kv: KvOutcome | None
    nodes: Mapping[str, str]
    settings: dict[str, Any]


async def run(options: Options, surroundings: Surroundings) -> Result:
    terms, prompts, nodes, repeats = options.terms, options.prompts, options.nodes, options.repeats
    salt = None
    if not options.no_cache_salt:
        salt = options.salt or f"ppd-acc-{int(surroundings.wall_clock() * 1000):x}"
    asking = Asking(sampling=terms.sampling, endpoint=terms.access.endpoint, salt=salt)
    async with engines_by_side(terms.access, {**options.pair, **nodes}) as asked:
        healths = await asyncio.gather(*(check_health(engine) for engine in asked))
        if not healths[0].is_healthy or not all(health.is_healthy or health.has_broken_numbers for health in healths):
            return _unhealthy(healths)
        plain = [Question(prompt=prompt) for prompt in prompts]
        questions = variations(prompts, len(prompts) * repeats)
        floor = (await terms_floor(asked[0], plain, terms, surroundings)).of_run(_STAGES * len(questions))
        progress = Progress(surroundings.errors, "stages", len(questions))
        experiments = await run_stages(_parts(asked), questions, asking, floor, progress.step)
    stages = judge_stages(experiments, floor, has_decode="decode_node" in nodes, alpha=options.alpha)
    settings = {
        "sampling": asdict(terms.sampling), "salt": salt, "repeats": repeats, "prompts": prompts,
        "alpha": options.alpha, "nodes": nodes, "endpoint": terms.access.endpoint,
    }  # fmt: skip
    return _result(
        _Measured(
            healths=healths, floor=floor, stages=stages, troubles=experiments.troubles, nodes=nodes, settings=settings,
            kv=check_kv(options.dumps) if options.dumps is not None else None,
        )
    )  # fmt: skip


def _parts(asked: Sequence[Engine]) -> Parts:
    others = {engine.side: engine for engine in asked[2:]}
    prefill, decode = others.get("prefill_node", asked[1]), others.get("decode_node")
    return Parts(baseline=asked[0], target=asked[1], prefill=prefill, decode=decode)


def _unhealthy(healths: Sequence[Health]) -> Result:
    ill = (f"{health.url}: {health.error}" for health in healths if not health.is_healthy)
    data = {"endpoints": [health.data() for health in healths], "stages": [], "located": None, "guide": []}
    return Result(exit=Exit.INFRASTRUCTURE, data=data, view=(health_table(healths), *ill))


def _result(measured: _Measured) -> Result:
    different, notes = differences(measured.healths, has_one_name=False)
    states = {each.stage: each.state for each in measured.stages}
    is_same = measured.kv.is_match if measured.kv is not None else None
    tallies = {each.stage: tally for each in measured.stages if (tally := each.tally) is not None}
    known = Conditions(
        is_model_different=bool(different), is_kv_same=is_same, is_prefill_alone="prefill_node" in measured.nodes
    )
    located = locate(states, tallies, known)
    guide = _guide(measured, is_same)
    code = Exit.PASS
    if located.place is not None:
        code = Exit.DIFFERENT
    elif "failed" in states.values():
        code = Exit.INFRASTRUCTURE
    elif "inconclusive" in states.values():
        code = Exit.INCONCLUSIVE
    notes += different
    notes += [f"{health.url}: {health.error}" for health in measured.healths if not health.is_healthy]
    notes += [f"P-only: not scored by teacher forcing: {trouble}" for trouble in dict.fromkeys(measured.troubles)]
    notes += [
        f"{_name(each.stage)}: answers differ more often than the baseline's replays do, by ties only"
        for each in measured.stages
        if each.state == "clean" and each.verdict is not None and each.verdict.is_above_floor
    ]
    refused = any(sample.error_reason == "status_400" for each in measured.stages for sample in each.samples)
    if refused and measured.settings["salt"] is not None:
        notes.append("an engine refused requests (400); if it is cache_salt that it refuses: --no-cache-salt")
    notes += [
        f"{_name(each.stage)}: {empty_pairs(each.verdict.counts['empty'])}"
        for each in measured.stages
        if each.verdict is not None and each.verdict.counts["empty"]
    ]
    notes += [f"{_name(each.stage)}: skipped: {each.reasons[0]}" for each in measured.stages if each.state == "skipped"]
    data, view = _data(measured, located, guide), _view(measured, located, guide)
    return Result(exit=code, data=data, view=view, notes=tuple(notes))


def _guide(measured: _Measured, is_same: bool | None) -> list[Advice]:
    through = [each for each in measured.stages if each.stage in ("pd", "warm", "direct")]
    samples = [sample for each in through for sample in each.samples if sample.prompt_tokens is not None]
    lengths: dict[bool, list[int]] = {False: [], True: []}
    for sample in samples:
        if sample.is_compared:
            lengths[sample.status == "real"].append(sample.prompt_tokens or 0)
    return decision_guide(
        {each.stage: each.state for each in measured.stages},
        is_divergent=any(
            each.verdict is not None and (each.verdict.counts["real"] or each.verdict.not_numbers) for each in through
        ),
        has_latent=any(each.has_latent for each in measured.stages),
        is_kv_same=is_same,
        equal_lengths=lengths[False],
        divergent_lengths=lengths[True],
    )


def _data(measured: _Measured, located: Located, guide: Sequence[Advice]) -> dict[str, Any]:
    return {
        "settings": measured.settings,
        "endpoints": [health.data() for health in measured.healths],
        "noise": msgspec.to_builtins(noise_of(measured.floor)),
        "stages": [
            {
                "stage": each.stage, "name": _name(each.stage), "state": each.state, "reasons": each.reasons,
                "routes": dict(each.routes), "verdict": verdict_data(each.verdict) if each.verdict else None,
                "scored_tokens": each.scored_tokens, "scored_real": each.scored_real,
                "samples": each.builtin_samples(),
            }
            for each in measured.stages
        ],
        "contrasts": _contrasts(measured.stages),
        "kv": measured.kv.data if measured.kv is not None else None,
        "located": asdict(located),
        "guide": [asdict(each) for each in guide],
    }  # fmt: skip


def _contrasts(stages: Sequence[StageResult]) -> list[dict[str, Any]]:
    """Share of divergent answers of one stage minus that of the one before it, with Newcombe's interval."""
    verdicts = {str(each.stage): each.verdict for each in stages if each.verdict is not None and each.verdict.compared}
    contrasts = []
    for later, earlier in _CONTRASTS:
        if later in verdicts and earlier in verdicts:
            one, other = verdicts[later], verdicts[earlier]
            low, high = difference(one.divergent, one.compared, other.divergent, other.compared, CONFIDENCE)
            share = one.divergent / one.compared - other.divergent / other.compared
            contrasts.append({"stage": later, "minus": earlier, "difference": share, "low": low, "high": high})
    return contrasts


def _view(measured: _Measured, located: Located, guide: Sequence[Advice]) -> tuple[RenderableType, ...]:
    lines: list[RenderableType] = [
        health_table(measured.healths), noise_line(measured.floor), _stages_table(measured.stages)
    ]  # fmt: skip
    for each in measured.stages:
        lines += [f"{_name(each.stage)}: {reason}" for reason in each.reasons if each.state != "clean"]
    for contrast in _contrasts(measured.stages):
        names = f"{_name(contrast['stage'])} minus {_name(contrast['minus'])}"
        interval = span(contrast["low"], contrast["high"])
        lines.append(f"divergent, {names}: {percent(contrast['difference'])} (95 %: {interval})")
    if measured.kv is not None:
        lines.append(f"KV dumps: {measured.kv.statement}")
    lines.append(f"breaks: {located.place}: {located.why}" if located.place else located.why)
    table = Table("applies", "rule", "why", title="quick decision guide", title_justify="left")
    for rule in guide:
        table.add_row({True: "yes", False: "no", None: "unknown"}[rule.applies], rule.rule, rule.why)
    return (*lines, table)


def _stages_table(stages: Sequence[StageResult]) -> Table:
    table = Table("stage", "state", "answers", "equal", "tie", "real", "?", "error", "empty", "divergent, 95 %",
                  "minus replays'", "max |delta|", "p", "route")  # fmt: skip
    for each in stages:
        verdict = each.verdict
        if verdict is None:
            table.add_row(_name(each.stage), each.state, *[""] * 11, _routes(each))
            continue
        counts = [str(verdict.counts[name]) for name in ("equal", "tie", "real", "unclassified", "error", "empty")]
        above = verdict.above_floor
        table.add_row(
            _name(each.stage), each.state, str(verdict.compared), *counts,
            span(*verdict.interval), span(*above) if above is not None else "-", number(verdict.largest_delta),
            "-" if verdict.precision.chance is None else f"{verdict.precision.chance:.3g}", _routes(each),
        )  # fmt: skip
    return table


def _routes(each: StageResult) -> str:
    return ", ".join(f"{count} {name}" for name, count in each.routes.items()) or "-"


def _name(stage: str) -> str:
    return dict(_NAMES)[stage]
