"""What a run is told as: one report per target, its files, and what people read."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.table import Table
from rich.text import Text

from ppd_acc.ask.model_notes import model_notes
from ppd_acc.batch.gating import Gate, gate_of, worst_of
from ppd_acc.batch.options import Options
from ppd_acc.batch.run import Done, Work, settings_of
from ppd_acc.compare.compare import noise_of
from ppd_acc.compare.floors import is_flaky
from ppd_acc.data.report import Flip, Report, Sample, Status, Totals, told_statuses
from ppd_acc.data.totals import totals_of
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Result
from ppd_acc.reports.formats import FORMATS
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted, empty_pairs, nats, noise_line, percent
from ppd_accuracy.answers.said import Difference, sentence

_SHOWN = 10
_TO_EXPLAIN: tuple[Status, ...] = ("real", "unclassified")
_encode = msgspec.json.Encoder().encode
_sample = msgspec.json.Decoder(Sample)


class _End(msgspec.Struct, frozen=True, gc=False):
    finish_reason: str | None = None


class _Brief(msgspec.Struct, kw_only=True):
    """What the summary needs of an encoded sample."""

    sample_id: str
    status: Status
    unit: Literal["tokens", "words"] = "tokens"
    baseline: _End = _End()
    target: _End = _End()
    flip: Flip | None = None
    differences: list[Difference] = []
    compared_tokens: int = 0
    has_same_finish: bool = True
    error: str | None = None
    failed: str | None = None
    tags: list[str] = []


_brief = msgspec.json.Decoder(_Brief)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One target's report without its samples, these encoded, and what they come to."""

    report: Report
    gate: Gate
    samples: Sequence[bytes]
    briefs: Sequence[_Brief]

    @property
    def totals(self) -> Totals:
        assert self.report.totals is not None, "told makes them"
        return self.report.totals


def result_of(work: Work, options: Options, done: Done, context: Surroundings, *, has_samples: bool) -> Result:
    """Writes all files and says what they say. Raises Trouble where one cannot be written."""
    tolds = [_told(work, options, done, context, target) for target in range(len(work.targets))]
    written = [line for number, told in enumerate(tolds) for line in _write(options, told, number, len(tolds))]
    code = worst_of(told.gate for told in tolds)
    _drop_journal(options, tolds, is_complete=None not in done.finished)
    data: Mapping[str, Any] = (
        _data(tolds[0], has_samples) if len(tolds) == 1 else {"targets": [_data(told, has_samples) for told in tolds]}
    )
    notes = [note for told in tolds for note in _notes(told, options)] + _run_notes(work, done, options, code)
    view = [part for told in tolds for part in _view(told, done)]
    steps = [step for number, told in enumerate(tolds) for step in _next_step(told, options, number, len(tolds))]
    return Result(exit=code, data=data, view=(*view, *map(Text, (*written, *steps))), notes=tuple(dict.fromkeys(notes)))


def _told(work: Work, options: Options, done: Done, context: Surroundings, target: int) -> Told:
    samples = [each[target] for each in done.finished if each is not None]
    briefs = [_brief.decode(each) for each in samples]
    if work.merged:
        own = {brief.sample_id: sample for brief, sample in zip(briefs, samples, strict=True)}
        samples = [own.get(sample_id, earlier) for sample_id, earlier in work.merged]
        briefs = [_brief.decode(each) for each in samples]
    totals = totals_of((each.status for each in briefs), options.limits.confidence)
    gate = gate_of(totals, options.limits, done.stopped[target])
    report = Report(
        tool=f"ppd-acc {version('ppd-proxy')}",
        created_at=context.wall_clock(),
        settings=_effective(work, options),
        baseline=done.baseline,
        target=done.targets[target],
        datasets=list(work.datasets),
        noise=noise_of(done.floor),
        totals=totals,
        gate=gate.described(options.limits),
    )
    return Told(report=report, gate=gate, samples=samples, briefs=briefs)


def _effective(work: Work, options: Options) -> dict[str, Any]:
    access = work.access
    return {
        **settings_of(work, options),
        "headers": sorted(access.headers),
        "concurrency": access.concurrency,
        "timeout_s": access.timeout_s,
        "retries": access.retries,
        "rate_limit": options.per_s,
        "cache_ttl_s": None if options.cache_dir is None else options.cache_ttl_s,
        "early_stop": options.limits.is_sequential,
    }


def _write(options: Options, told: Told, number: int, targets: int) -> Iterator[str]:
    for flag, path in options.outputs.items():
        own = _own_path(path, number, targets)
        if flag == "output":
            write_whole(own, encoded_report(told.report, told.samples), "--output")
        else:
            parts = FORMATS[flag](told.report, map(_sample.decode, told.samples))
            write_whole(own, (part.encode() for part in parts), f"--{flag}")
        yield f"{'report' if flag == 'output' else flag}: {own}"


def _own_path(path: Path, number: int, targets: int) -> Path:
    return path if targets == 1 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def _next_step(told: Told, options: Options, number: int, targets: int) -> Iterator[str]:
    """Where the report is a file and something in it wants an explanation."""
    path = options.outputs.get("output")
    worst = min(
        (each for each in told.briefs if each.status in _TO_EXPLAIN),
        key=lambda brief: _TO_EXPLAIN.index(brief.status), default=None,
    )  # fmt: skip
    if path is not None and worst is not None:
        line = shlex.join(["--report", str(_own_path(path, number, targets)), "--sample", worst.sample_id])
        yield f"next: ppd-acc explain {line}"


def encoded_report(report: Report, samples: Iterable[bytes]) -> Iterator[bytes]:
    """The report with samples that are encoded already, a line each."""
    head, place, tail = _encode(report).rpartition(b'"samples":[]')
    assert place, "a report without samples has an empty list of them"
    yield head + b'"samples":['
    for number, sample in enumerate(samples):
        yield b",\n" if number else b"\n"
        yield sample
    yield b"\n]" + tail + b"\n"


def _data(told: Told, has_samples: bool) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.structs.asdict(told.report)
    data["samples"] = [_sample.decode(each) for each in told.samples] if has_samples else []
    return data


def _drop_journal(options: Options, tolds: Sequence[Told], *, is_complete: bool) -> None:
    """A journal that nobody asked for goes when the report has everything and nothing is worth asking again."""
    if options.journal is None or not options.is_own_journal or not is_complete:
        return
    if not any(told.totals.error for told in tolds):
        Path(options.journal).unlink(missing_ok=True)


def _view(told: Told, done: Done) -> Iterator[Any]:
    totals, gate = told.totals, told.gate
    target = told.report.target.url if told.report.target is not None else "target"
    yield Text(f"{gate.outcome}: {gate.reason}", style="bold")
    yield Text(f"{done.baseline.url} against {target}")
    table = Table("", "samples", "share", "interval", box=None, pad_edge=False)
    for name, count, share, interval in (
        ("different", totals.compared - totals.equal, totals.rate, totals.rate_interval),
        ("real", totals.real, totals.real_rate, totals.real_interval),
    ):
        table.add_row(name, str(count), percent(share), f"{percent(interval.low)} to {percent(interval.high)}")
    for name in (each for each in told_statuses(totals) if each not in ("equal", "real")):
        table.add_row(name, str(getattr(totals, name)), "", "")
    table.add_row("all", str(totals.samples), "", "")
    yield table
    yield Text(noise_line(done.floor))
    worst = [each for each in told.briefs if each.status in ("real", "unclassified", "error")]
    for each in worst[:_SHOWN]:
        yield Text(f"  {each.sample_id!r} {each.status}: {_what(each)}")
    if len(worst) > _SHOWN:
        yield Text(f"  and {len(worst) - _SHOWN} more")


def _what(brief: _Brief) -> str:
    if brief.status == "error":
        return f"{brief.failed}: {brief.error}"
    if brief.flip is None:
        return ", ".join(filter(None, (*brief.tags, sentence(brief.differences)))) or "not known where"
    shift = "" if brief.flip.shift is None else f", shift {'at least ' * brief.flip.is_bound}{nats(brief.flip.shift)}"
    return f"first difference at {brief.unit[:-1]} {brief.flip.position}{shift}"


def _notes(told: Told, options: Options) -> Iterator[str]:
    briefs = [each for each in told.briefs if each.status not in ("error", "empty")]
    if told.totals.empty:
        yield f"{empty_pairs(told.totals.empty)}: nothing was compared there"
    words = sum(each.unit == "words" for each in briefs)
    if words:
        yield f"{counted(words, 'sample was', 'samples were')} compared by words: the engines tell no token ids"
    finishes = sum(each.status == "equal" and not each.has_same_finish for each in briefs)
    if finishes:
        what = "equal answer tells its finish reason", "equal answers tell their finish reasons"
        yield f"{counted(finishes, *what)} on one side only"
    tags = Counter(tag.partition(":")[0] for each in briefs for tag in each.tags)
    if tags["equal-by"]:
        texts = counted(tags["equal-by"], "different text counts", "different texts count")
        yield f"{texts} as equal by {', '.join(options.matching.names)}"
    if tags["not-forced"]:
        yield f"{counted(tags['not-forced'], 'different answer')} could not be scored by the baseline"
    cut = sum("length" in (each.baseline.finish_reason, each.target.finish_reason) for each in briefs)
    if options.cut_share is not None and briefs and cut / len(briefs) > options.cut_share:
        yield f"{cut} of {len(briefs)} answers were cut at --max-tokens, more than {percent(options.cut_share)}"
    if options.prices is not None:
        yield _costs(told, options.prices)


def _costs(told: Told, prices: tuple[float, float]) -> str:
    """Of the answers in this report; noise floor, scores and repeated requests come on top."""
    asked = answered = 0
    for sample in map(_sample.decode, told.samples):
        answers = [side for side in (sample.baseline, sample.target) if side.tokens]
        asked += len(answers) * (sample.prompt_tokens or 0)
        answered += sum(len(side.tokens) for side in answers)
    usd = (asked * prices[0] + answered * prices[1]) / 1e6
    return f"{asked} prompt tokens and {answered} answer tokens: {usd:.4g} USD, without noise floor and repeats"


def _run_notes(work: Work, done: Done, options: Options, code: Exit) -> list[str]:
    notes = []
    if not work.sampling.is_greedy:
        notes.append(f"temperature is {work.sampling.temperature:g}: sampled answers differ by chance, so no difference"
                     " is classified")  # fmt: skip
    notes += model_notes(done.baseline.model, [(target.url, target.model) for target in done.targets])
    if is_flaky(done.floor):
        notes.append(
            f"the baseline does not reproduce itself: {done.floor.flips} of {counted(done.floor.answers, 'answer')}"
            f" came out differently when asked again; look at it first: ppd-acc reproducibility"
            f" --url {done.baseline.url}"
        )
    if done.recalled:
        notes.append(f"{counted(done.recalled, 'sample was', 'samples were')} in the journal {options.journal} already")
    elif options.is_resumed:
        notes.append(f"--resume: no finished sample in {options.journal}, so all were asked")
    if None in done.finished:
        notes.append(f"{counted(done.finished.count(None), 'sample was', 'samples were')} not asked: stopped early")
    if done.cache is not None:
        hits = counted(done.cache.hits, "answer was", "answers were")
        notes.append(f"cache {done.cache.directory}: {hits} in it, {done.cache.misses} not")
    if done.retries:
        notes.append(f"{counted(done.retries, 'request')} had to be sent again")
    if code == Exit.INFRASTRUCTURE and options.journal is not None:
        notes.append("--resume asks again for the samples that are errors")
    return notes


def dry_data(work: Work, options: Options) -> dict[str, Any]:
    """What would be asked, by nobody yet."""
    rows, engines = len(work.rows), len(work.targets) + (work.baseline is not None)
    noise = 3 * options.noise_answers if work.baseline is not None else 0
    return {
        "settings": _effective(work, options),
        "samples": rows,
        "requests": rows * engines + noise,
        "longest_prompt_characters": max((len(row.question.text) for row in work.rows), default=0),
        "limits": dataclasses.asdict(options.limits),
        "outputs": {flag: str(path) for flag, path in options.outputs.items()},
    }
