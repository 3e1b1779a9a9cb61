"""From what each stage of a split deployment did to answers, which stage breaks, and what the guide advises.

A stage is an experiment: the same prompts on an unsplit baseline and through a part of the split deployment. What one
experiment has and the one before it has not is what their difference is put down to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["clean", "broken", "inconclusive", "failed", "skipped"]
Stage = Literal["prefill", "pd", "warm", "direct", "decode", "aggregated"]
Place = Literal["model", "prefill", "transfer", "decode", "prefill or transfer", "transfer or decode",
                "prefill, transfer or decode", "direct", "pd or direct", "cache", "aggregated"]  # fmt: skip
_FEW = 3
_ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTally:
    """What a stage saw: `real` differences and logprobs that are no numbers among `at_risk` tokens (up to each
    answer's first difference), and logprobs `beyond` the noise floor among `tokens`."""

    real: int
    at_risk: int
    beyond: int
    tokens: int


def is_cleared(suspect: StageTally, broken: StageTally) -> bool:
    """Whether `suspect` shows so much less than `broken` that the two cannot have the same fault: Fisher's exact test,
    one-sided, per token. An experiment that saw few tokens clears nobody."""
    from scipy.stats import fisher_exact

    chances = [
        float(fisher_exact([[few, of - few], [many, among - many]], alternative="less").pvalue)
        for few, of, many, among in (
            (suspect.real, suspect.at_risk, broken.real, broken.at_risk),
            (suspect.beyond, suspect.tokens, broken.beyond, broken.tokens),
        )
        if many and of
    ]
    return bool(chances) and min(chances) * len(chances) < _ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """`place` is None where nothing is known to break."""

    place: Place | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One rule of the guide. `applies` is None where what it needs was not measured."""

    rule: str
    applies: bool | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What is known beside the stages. `is_kv_same` is None without dumps. `is_prefill_alone`: the first token came
    from a prefill engine by itself; through a whole deployment the decode engine computes it on transferred KV."""

    is_model_different: bool = False
    is_kv_same: bool | None = None
    is_prefill_alone: bool = False


def locate(states: Mapping[Stage, State], tallies: Mapping[Stage, StageTally], known: Conditions) -> Located:
    """The first stage that breaks while what comes before it is right."""
    broken = {stage for stage, state in states.items() if state == "broken"}
    if known.is_model_different:
        return Located(place="model", why="the engines have other models, tokenizers or chat templates")
    if "aggregated" in broken:
        return Located(place="aggregated", why="answers of the unsplit engines behind the proxy differ, too")
    if "prefill" in broken and known.is_prefill_alone:
        return Located(
            place="prefill", why="what the prefill computes, before any KV is moved, is different already: look at the"
            " prefill engine's weights, dtype, parallelism and kernels",
        )  # fmt: skip
    if "decode" in broken:
        return Located(place="decode", why="the decode engine differs when it computes everything itself")
    if "prefill" in broken:
        return _first_token(states, tallies, known)
    if "pd" in broken:
        return _later_tokens(states, tallies, known)
    if known.is_kv_same is False:
        return Located(place="prefill or transfer", why="the KV dumps differ, though no answer showed it")
    pd = "right" if states.get("pd") == "clean" else "not known to be wrong"
    if "direct" in broken:
        why = "the KV that the decode engine keeps from turn to turn, or what it computes on top of it"
        place: Place = "direct" if states.get("pd") == "clean" else "pd or direct"
        return Located(place=place, why=f"first turns are {pd}, later turns break: {why}")
    if "warm" in broken:
        why = "a prefix cache returns what it should not"
        return Located(place="cache", why=f"cold answers are {pd}, the same prompts asked again break: {why}")
    unknown = [stage for stage, state in states.items() if state in ("inconclusive", "failed")]
    if unknown:
        return Located(place=None, why=f"nothing is known to break, but {', '.join(unknown)} could not be judged")
    return Located(place=None, why="no stage breaks")


def _first_token(states: Mapping[Stage, State], tallies: Mapping[Stage, StageTally], known: Conditions) -> Located:
    """The first token through the whole deployment is different."""
    if known.is_kv_same:
        return Located(place="decode", why="the first token differs though the KV arrived as it should")
    if known.is_kv_same is False:
        return Located(place="prefill or transfer", why="the first token differs and so do the KV dumps")
    if _is_right("decode", states, tallies, "prefill"):
        return Located(
            place="prefill or transfer", why="the first token differs, the decode engine by itself is right:"
            " --prefill-node tells the two apart",
        )  # fmt: skip
    return Located(
        place="prefill, transfer or decode", why="the first token differs already: --prefill-node and --decode-node, or"
        " KV dumps, tell which of them it is",
    )  # fmt: skip


def _later_tokens(states: Mapping[Stage, State], tallies: Mapping[Stage, StageTally], known: Conditions) -> Located:
    """Whole answers differ, and nothing is known of the first token."""
    is_prefill_right = _is_right("prefill", states, tallies, "pd")
    if known.is_kv_same:
        return Located(place="decode", why="answers differ though the KV arrived as it should: the decode stage")
    if known.is_kv_same is False and is_prefill_right and known.is_prefill_alone:
        return Located(place="transfer", why="the prefill is right, answers differ and so do the KV dumps")
    if known.is_kv_same is False:
        return Located(place="prefill or transfer", why="answers differ and so do the KV dumps")
    if not is_prefill_right:
        seen = tallies["prefill"].tokens if "prefill" in tallies else 0
        return Located(
            place="prefill, transfer or decode", why=f"pd answers differ; P-only shows no fault, but saw {seen} tokens"
            " only: --prefill-node (its prefill then scores whole answers), or more --repeats",
        )  # fmt: skip
    if _is_right("decode", states, tallies, "pd"):
        return Located(
            place="transfer", why="the prefill is right, the decode engine by itself is right, both together are not:"
            " what is between them",
        )  # fmt: skip
    if known.is_prefill_alone:
        return Located(
            place="transfer or decode", why="the prefill is right, what follows is not: --decode-node, or KV dumps,"
            " tell the transfer from the decode stage",
        )  # fmt: skip
    return Located(
        place="decode", why="first tokens, which need all of the transferred KV, are right; those that follow are not"
    )


def _is_right(stage: Stage, states: Mapping[Stage, State], tallies: Mapping[Stage, StageTally], than: Stage) -> bool:
    """Whether a stage is clean, and saw enough for that to mean something."""
    is_known = states.get(stage) == "clean" and stage in tallies and than in tallies
    return is_known and is_cleared(tallies[stage], tallies[than])


def decision_guide(
    states: Mapping[Stage, State], *, is_divergent: bool, has_latent: bool, is_kv_same: bool | None,
    equal_lengths: Sequence[int], divergent_lengths: Sequence[int],
) -> list[Advice]:  # fmt: skip
    """The rules of the quick decision guide, each with whether the data meet it.

    `is_divergent`: answers through the split deployment differ by more than ties. `has_latent`: tokens are equal but
    logprobs are not. Lengths are prompt tokens, of prompts whose answers are equal and of those whose answers are not.
    """
    judged = {stage: state for stage, state in states.items() if state != "skipped"}
    is_green = bool(judged) and all(state == "clean" for state in judged.values()) and is_kv_same is not False
    bad = ", ".join(f"{stage} {state}" for stage, state in judged.items() if state != "clean")
    if is_kv_same is False:
        bad += (", " if bad else "") + "KV different"
    high = "answers differ" if is_divergent else "answers do not differ"
    kv = {True: "the KV is the same", False: "the KV is different", None: "no KV dumps were given"}[is_kv_same]
    return [
        Advice(
            rule="All metrics green: the split deployment is accurate; safe to deploy.", applies=is_green,
            why=f"clean: {', '.join(judged)}" if is_green else (bad or "nothing was judged"),
        ),
        Advice(
            rule="High divergence, low KV error: likely the decode stage, not the KV transfer.",
            applies=(is_divergent and is_kv_same) if is_kv_same is not None or not is_divergent else None,
            why=f"{high}; {kv}",
        ),
        Advice(
            rule="High KV error, high divergence: the KV transfer. Check serialization, quantization, alignment.",
            applies=(is_divergent and not is_kv_same) if is_kv_same is not None or not is_divergent else None,
            why=f"{high}; {kv}",
        ),
        _length_rule(equal_lengths, divergent_lengths),
        Advice(
            rule="Logprobs (entropy) differ but text matches: a latent precision issue. Monitor with watch.",
            applies=has_latent,
            why="equal answers with logprobs beyond the noise floor" if has_latent
            else "no stage has equal answers with logprobs beyond the noise floor",
        ),
    ]  # fmt: skip


def _length_rule(equal: Sequence[int], divergent: Sequence[int]) -> Advice:
    """Mann-Whitney: are the prompts whose answers differ the longer ones?"""
    rule = "Divergence increases with context length: use bisect; likely position encoding or attention mask."
    if not divergent:
        return Advice(rule=rule, applies=False, why="no answer differs")
    if len(equal) < _FEW or len(divergent) < _FEW or len({*equal, *divergent}) == 1:
        why = f"{len(divergent)} answers differ and {len(equal)} do not: too few, or all of one length; use bisect"
        return Advice(rule=rule, applies=None, why=why)
    from scipy.stats import mannwhitneyu

    chance = float(mannwhitneyu(divergent, equal, alternative="greater").pvalue)
    medians = f"{sorted(divergent)[len(divergent) // 2]} against {sorted(equal)[len(equal) // 2]} tokens"
    why = f"prompts whose answers differ are {medians} long (medians), p = {chance:.3g}"
    return Advice(rule=rule, applies=chance < _ALPHA, why=why)
