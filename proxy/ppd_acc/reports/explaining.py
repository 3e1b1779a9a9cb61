"""What happened at a sample's first difference, and what its numbers suggest to try next. Reads no file, asks nobody.

Sentences rest on figures of the report; where a figure is missing, the sentence says which, and how to get it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from ppd_acc.data.report import LONGER_THAN_FLOOR, SAME_TOKENS, Flip, Forced, Report, Sample, Side
from ppd_acc.views import counted, nats
from ppd_accuracy.answers.flips import Token
from ppd_accuracy.answers.said import EMPTY, sentence, shared_characters
from ppd_accuracy.statistics.intervals import wilson

AROUND_TOKENS = 5
_RECENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A token of the context: None on a side whose answer has none there. `delta` is |logprob difference| in nats,
    before the first difference only."""

    position: int
    baseline: Token | None
    target: Token | None
    baseline_logprob: float | None
    target_logprob: float | None
    delta: float | None


@dataclass(frozen=True, slots=True)
class Idea:
    """`why` rests on the sample's figures; `command` is a line to run, where there is one."""

    why: str
    command: str | None = None


def places(sample: Sample, around: int = AROUND_TOKENS) -> list[Place]:
    """The tokens around the first difference; of equal answers, around the largest logprob difference."""
    centre = sample.flip.position if sample.flip is not None else sample.max_delta_at
    if centre is None:
        return []
    last = sample.longest - 1
    return [_place(sample, number) for number in range(max(0, centre - around), min(last, centre + around) + 1)]


def _place(sample: Sample, position: int) -> Place:
    one, other = _logprob(sample.baseline, position), _logprob(sample.target, position)
    is_comparable = position < sample.compared_tokens and one is not None and other is not None
    return Place(
        position=position,
        baseline=sample.baseline.tokens[position] if position < len(sample.baseline.tokens) else None,
        target=sample.target.tokens[position] if position < len(sample.target.tokens) else None,
        baseline_logprob=one,
        target_logprob=other,
        delta=abs(one - other) if is_comparable and one is not None and other is not None else None,
    )


def _logprob(side: Side, position: int) -> float | None:
    return side.logprobs[position] if position < len(side.logprobs) else None


def split_texts(sample: Sample) -> tuple[str, str, str]:
    """What both texts begin with, and how each goes on."""
    one, other = sample.baseline.text, sample.target.text
    shared = shared_characters(one, other)
    return one[:shared], one[shared:], other[shared:]


def story(sample: Sample, report: Report) -> list[str]:
    """What happened, sentence by sentence."""
    if sample.error is not None:
        return [f"It was not compared: {sample.failed or 'the check'} failed ({sample.error_reason}): {sample.error}"]
    if sample.status == "empty":
        return [f"empty: {EMPTY}", *map(str, sample.differences)]
    told = [_headline(sample)]
    if sample.flip is not None:
        told += [f"differs in {each}" for each in sample.differences if each.part != "content"]
    if sample.flip is not None and sample.unit == "tokens":
        told += _margins(sample.flip, report)
    told += _before(sample, report)
    if sample.forced is not None:
        forced = sample.forced
        told.append(
            f"forced: the baseline's prefill over the target's {counted(forced.tokens, 'token')} finds"
            f" {forced.token_accuracy:.1%} of them the best ones; logprobs differ by {nats(forced.mean_delta)} on"
            f" average and {nats(forced.max_delta)} at most, at token {forced.max_delta_at}; likelihood target minus"
            f" baseline {nats(forced.likelihood_delta)}"
        )
        if forced.not_numbers:
            told.append("forced: " + counted(forced.not_numbers, "logprob is no number", "logprobs are no numbers"))
    if not sample.has_same_finish and not any(each.part == "finish_reason" for each in sample.differences):
        told.append(f"they ended differently: {sample.baseline.finish_reason} and {sample.target.finish_reason}")
    if sample.metadata.get("outcome"):
        told.append(_route(sample))
    return told


def _headline(sample: Sample) -> str:
    unit = sample.unit
    if sample.flip is None:
        return f"{sample.status}: {sample.compared_tokens} {unit} compared{_reason_without_flip(sample)}"
    position = sample.flip.position
    one, other = _token(sample.flip, "baseline", sample), _token(sample.flip, "target", sample)
    return (
        f"{sample.status}: {unit[:-1]} {position} is the first that differs (baseline {one}, target {other}), after"
        f" {position} equal ones"
    )


def _reason_without_flip(sample: Sample) -> str:
    if sample.status == "equal":
        return ""
    if sample.not_numbers:
        broken = counted(sample.not_numbers, "logprob is", "logprobs are")
        return f"; the tokens are equal, but {broken} NaN or infinite"
    found = sentence(sample.differences)
    if SAME_TOKENS in sample.tags:
        return f"; the token ids are equal, but the engines read them differently: {found}"
    return f"; no token is known to differ, but {found}" if found else "; where they differ was not kept"


def _token(flip: Flip, side: str, sample: Sample) -> str:
    text = getattr(flip, f"{side}_text")
    token = getattr(flip, f"{side}_token")
    if token is not None:
        return f"{token} {text!r}" if text is not None else repr(token) if isinstance(token, str) else str(token)
    answer: Side = getattr(sample, side)
    if sample.unit == "words" and flip.position < len(answer.tokens):
        return repr(answer.tokens[flip.position])
    return "not known" if sample.metadata.get("method") else "had ended"


def _margins(flip: Flip, report: Report) -> list[str]:
    if flip.shift is None:
        return ["neither engine told by how much it preferred its token"]
    at_least = "at least " if flip.is_bound else ""
    told = [
        f"margins: the baseline preferred its token by {nats(flip.baseline_margin)}, the target its own by"
        f" {nats(flip.target_margin)}; together the engines moved by {at_least}{nats(flip.shift)}"
        + (" (a bound: one engine does not list the other's token)" if flip.is_bound else "")
    ]
    noise = report.noise
    tokens, largest = noise.tokens, noise.largest_shift
    if flip.floor_tokens is not None:
        tokens, largest = flip.floor_tokens, flip.floor_shift
    if largest is None:
        told.append("noise floor: not measured, so nothing says whether a healthy engine moves as much")
    else:
        share = f", {flip.shift / largest:.3g} times that" if largest > 0 else ""
        where = " in prompts as long" if tokens < noise.tokens else ""
        told.append(
            f"noise floor: {tokens} healthy tokens{where} moved by {nats(largest)} at most; this one by"
            f" {at_least}{nats(flip.shift)}{share}"
        )
    if flip.chance is not None:
        told.append(f"chance: a healthy token moves as much with a probability of at most {flip.chance:.3g}")
    return told


def _before(sample: Sample, report: Report) -> list[str]:
    if sample.max_delta is None:
        return []
    largest = report.noise.largest_delta
    beside = "" if largest is None else f" (noise floor: {nats(largest)})"
    where = "" if sample.max_delta_at is None else f", at token {sample.max_delta_at}"
    before = "before it" if sample.flip is not None else "over the answer"
    told = [
        f"{before}: logprobs differ by {nats(sample.mean_delta)} on average and {nats(sample.max_delta)} at most"
        f"{where}{beside}"
    ]
    if sample.not_numbers:
        told.append(counted(sample.not_numbers, "logprob is no number", "logprobs are no numbers"))
    return told


def _route(sample: Sample) -> str:
    told = sample.metadata
    pair = f" by {told['pair']}" if told.get("pair") else ""
    threshold = told.get("threshold")
    beyond = "" if threshold is None else f"; no healthy answer like it is beyond {nats(threshold)}"
    return f"the proxy served it as {told.get('route')}{pair}, turn {told.get('turn')}: {told['outcome']}{beyond}"


def advice(sample: Sample, report: Report) -> list[Idea]:
    """What to try next, the most telling first. Empty where nothing is wrong."""
    if sample.error is not None:
        url = getattr(getattr(report, sample.failed or "", None), "url", None)
        why = f"the {sample.failed or 'check'} gave no answer ({sample.error_reason})"
        return [Idea(why, _line("healthcheck", url) if url else None)]
    ideas = [*_on_measuring(sample, report)]
    if sample.status in ("real", "unclassified") or _is_drifting(sample, report):
        ideas += _on_faults(sample, report)
    if not ideas and sample.status == "tie":
        ideas.append(Idea("nothing: healthy engines move as much; more of these are no evidence of a fault"))
    return ideas


def _on_measuring(sample: Sample, report: Report) -> Iterator[Idea]:
    ask = partial(_ask, sample, report)
    if sample.status == "equal":
        return
    if sample.status == "empty":
        why = "neither engine answered anything: look at --max-tokens, stop words, and what the prompt asks for"
        yield Idea(why, ask("compare-output"))
    elif SAME_TOKENS in sample.tags:
        why = "the tokens are the same and read differently: compare tokenizers, tool and reasoning parsers, versions"
        yield Idea(why)
    elif sample.unit == "words":
        why = "the report has words, not tokens: ask again with an engine that gives token ids"
        yield Idea(why, ask("compare-output"))
    elif report.noise.largest_shift is None:
        yield Idea("no noise floor: measure it", ask("compare-output", "--noise-floor 20"))
    elif LONGER_THAN_FLOOR in sample.tags:
        why = "the noise floor was measured on shorter prompts only: measure it on this one"
        yield Idea(why, ask("compare-output", "--noise-floor 20"))
    elif sample.flip is not None and sample.flip.is_bound and sample.status == "unclassified":
        why = "the margin is only a bound: ask for more logprobs per token"
        yield Idea(why, ask("compare-logprobs", "--top-k 20"))


def _is_drifting(sample: Sample, report: Report) -> bool:
    largest = report.noise.largest_delta
    return sample.not_numbers > 0 or (
        sample.max_delta is not None and largest is not None and sample.max_delta > largest
    )


def _on_faults(sample: Sample, report: Report) -> Iterator[Idea]:
    ask, flip = partial(_ask, sample, report), sample.flip
    if sample.forced is not None and flip is not None and _is_backed(sample.forced, report):
        why = (
            "the baseline's own prefill finds every token of the target's answer the best one, and its logprobs as"
            " they are: the odd answer is the baseline's own; ask it again"
        )
        url = report.baseline.url if report.baseline is not None else None
        yield Idea(why, _line("reproducibility", "--url", url) if url is not None else None)
        return
    if sample.not_numbers:
        yield Idea("logprobs are no numbers: look at the KV itself", "ppd-acc check-kv --help")
    if flip is not None and flip.position == 0:
        why = "the first token differs: it comes from the prefill, before any token was decoded on moved KV"
        yield Idea(why, ask("diagnose"))
    elif _is_drifting(sample, report):
        why = (
            f"logprobs are {nats(sample.max_delta)} apart on equal tokens, beyond the noise: both read other numbers"
            " from the start, so compare KV dumps or token by token"
        )
        yield Idea(why, ask("compare-logprobs"))
    elif flip is not None and sample.max_delta is not None and report.noise.largest_delta is not None:
        why = "logprobs were within the noise until this token: see whether it comes again at the same place"
        yield Idea(why, ask("reproducibility", "--runs 10"))
    for seen, command in ((_growth(sample), "compare-logprobs"), (_length(sample, report), "bisect")):
        if seen is not None:
            yield Idea(seen, ask(command))
    share = _share(report)
    if share is not None:
        yield Idea(share)


def _is_backed(forced: Forced, report: Report) -> bool:
    """Whether the baseline's prefill has nothing to say against the target's answer."""
    largest = report.noise.largest_delta
    is_close = forced.max_delta is not None and largest is not None and forced.max_delta <= largest
    return forced.tokens > 0 and forced.token_accuracy == 1.0 and is_close and not forced.not_numbers


def _growth(sample: Sample) -> str | None:
    """Whether the last deltas before the difference are well above those before them."""
    known = [delta for at in range(sample.compared_tokens) if (delta := _place(sample, at).delta) is not None]
    if len(known) < 3 * _RECENT:
        return None
    recent, earlier = median(known[-_RECENT:]), median(known[:-_RECENT])
    if recent <= 4 * earlier or recent == 0:
        return None
    return (
        f"differences grew: the last {_RECENT} tokens before it have a median of {nats(recent)}, those before"
        f" {nats(earlier)}: what was decoded late is worse than what was prefilled"
    )


def _length(sample: Sample, report: Report) -> str | None:
    """Whether faulty samples have longer prompts than sound ones."""
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for each in report.samples:
        if each.prompt_tokens is not None and each.is_compared:
            lengths[each.status in ("real", "unclassified")].append(each.prompt_tokens)
    bad, good = lengths[True], lengths[False]
    if len(bad) < 3 or len(good) < 3 or median(bad) <= 1.5 * median(good):
        return None
    longer = sum(length > (sample.prompt_tokens or 0) for length in good)
    return (
        f"samples like this have longer prompts: a median of {median(bad):g} tokens against {median(good):g};"
        f" {longer} of {len(good)} sound ones are longer than this one"
    )


def _share(report: Report) -> str | None:
    compared = [each for each in report.samples if each.is_compared]
    bad = sum(each.status in ("real", "unclassified") for each in compared)
    if len(compared) < 2:
        return None
    low, high = wilson(bad, len(compared), 0.95)
    return f"{bad} of {len(compared)} samples are like this ({low:.1%} to {high:.1%} at 95 %)"


def _ask(sample: Sample, report: Report, command: str, *more: str) -> str | None:
    """A line that asks the same prompt again; None where the report has not what it needs."""
    if sample.prompt is None or report.baseline is None or report.target is None or len(sample.prompt) > 2000:
        return None
    return _line(
        command, "--baseline", report.baseline.url, "--target", report.target.url, "--prompt", sample.prompt
    ) + "".join(f" {each}" for each in more)


def _line(*words: str) -> str:
    return "ppd-acc " + " ".join(map(shlex.quote, words))


def token_ids(shown: Sequence[Place]) -> list[int]:
    """Every id in the context, once."""
    tokens = (token for place in shown for token in (place.baseline, place.target))
    return list(dict.fromkeys(token for token in tokens if isinstance(token, int)))
