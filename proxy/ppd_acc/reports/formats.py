"""A report as CSV, JUnit XML, Markdown and Prometheus text. What an engine or a dataset wrote is escaped everywhere.

Parts are made one after the other, so a large report need not be in memory as text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from xml.sax.saxutils import escape, quoteattr

from ppd_acc.data.report import Interval, Noise, Report, Sample, Totals, told_statuses
from ppd_acc.views import counted, nats, percent
from ppd_accuracy.answers.said import Part, part_of, sentence

Samples = Iterable[Sample]
Formatter = Callable[[Report, Samples], Iterator[str]]
COLUMNS = (
    "sample_id", "status", "position", "baseline_margin", "target_margin", "shift", "chance", "compared_tokens",
    "mean_delta", "max_delta", "prompt_tokens", "baseline_finish_reason", "target_finish_reason", "error_reason",
    "error", "prompt", "baseline_output", "target_output", "baseline_ms", "target_ms", "tags", "baseline_reasoning",
    "target_reasoning", "baseline_tool_calls", "target_tool_calls", "differences",
)  # fmt: skip
MOST_IN_MARKDOWN = 20
_PARTS: tuple[Part, ...] = ("reasoning", "tool_calls")
_SHOWN_CHARACTERS = 200
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#|~$&])")


def to_csv(report: Report, samples: Samples) -> Iterator[str]:
    """One line per sample. A text that a spreadsheet would run as a formula begins with an apostrophe."""
    yield _line(COLUMNS)
    for sample in samples:
        flip, sides = sample.flip, (sample.baseline.said, sample.target.said)
        yield _line(
            (
                _text(sample.sample_id), sample.status,
                *((flip.position, flip.baseline_margin, flip.target_margin, flip.shift, flip.chance)
                  if flip is not None else (None,) * 5),
                sample.compared_tokens, sample.mean_delta, sample.max_delta, sample.prompt_tokens,
                _text(sample.baseline.finish_reason), _text(sample.target.finish_reason), sample.error_reason,
                _text(sample.error), _text(_prompt(sample)), _text(sample.baseline.text), _text(sample.target.text),
                sample.baseline.total_ms, sample.target.total_ms, _text(" ".join(sample.tags)),
                *(_text(part_of(said, part)) for part in _PARTS for said in sides),
                _text(sentence(sample.differences)),
            )
        )  # fmt: skip


def _line(cells: Sequence[object]) -> str:
    file = io.StringIO()
    csv.writer(file).writerow(["" if cell is None else cell for cell in cells])
    return file.getvalue()


def _text(text: str | None) -> str:
    told = (text or "").replace("\0", "\ufffd")
    return "'" + told if told.startswith(_FORMULA) else told


def _prompt(sample: Sample) -> str:
    if sample.prompt is not None or not sample.messages:
        return sample.prompt or ""
    content = sample.messages[-1].get("content")
    return content if isinstance(content, str) else ""


def to_junit(report: Report, samples: Samples) -> Iterator[str]:
    """A real difference is a failure, an error an error, what could not be classified or was empty is skipped; ties
    pass."""
    totals = _totals(report)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    skipped = totals.unclassified + totals.empty
    counts = f'tests="{totals.samples}" failures="{totals.real}" errors="{totals.error}" skipped="{skipped}"'
    yield f'<testsuites name="ppd-acc" {counts}>\n<testsuite name={_attribute(_name(report))} {counts}>\n'
    for sample in samples:
        seconds = max(sample.baseline.total_ms or 0.0, sample.target.total_ms or 0.0) / 1000
        head = f'<testcase classname="batch-compare" name={_attribute(sample.sample_id)} time="{seconds:.3f}"'
        inner = _verdict(sample)
        yield f"{head}>{inner}</testcase>\n" if inner else f"{head}/>\n"
    yield "</testsuite>\n</testsuites>\n"


def _verdict(sample: Sample) -> str:
    both = f"prompt: {_prompt(sample)}\nbaseline: {sample.baseline.said}\ntarget: {sample.target.said}"
    if sample.status == "error":
        told = f"{sample.failed}: {sample.error}"
        return f"<error type={_attribute(sample.error_reason or 'error')} message={_attribute(told)}/>"
    if sample.status == "real":
        return f'<failure type="real" message={_attribute(_difference(sample))}>{_xml(both)}</failure>'
    if sample.status == "unclassified":
        return f"<skipped message={_attribute('unclassified: ' + _difference(sample))}/>"
    if sample.status == "empty":
        return '<skipped message="empty: neither engine answered anything"/>'
    return f"<system-out>{_xml('tie: ' + _difference(sample))}</system-out>" if sample.status == "tie" else ""


def _difference(sample: Sample) -> str:
    flip = sample.flip
    if flip is None:
        return ", ".join(filter(None, (*sample.tags, sentence(sample.differences)))) or "not known where"
    shift = "" if flip.shift is None else f", shift {'at least ' if flip.is_bound else ''}{nats(flip.shift)}"
    return f"first difference at {sample.unit[:-1]} {flip.position}{shift}"


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def to_markdown(report: Report, samples: Samples) -> Iterator[str]:
    """A summary for a pull request: the gate, the totals, and the first differences that are no ties."""
    totals, gate = _totals(report), report.gate
    yield f"## ppd-acc batch-compare: {_mark(str(gate.get('outcome', 'unknown')))}\n\n"
    yield f"{_mark(str(gate.get('reason', '')))}\n\n"
    yield "| | Samples | Share | Interval |\n| --- | ---: | ---: | --- |\n"
    yield f"| compared | {totals.compared} of {totals.samples} | | |\n"
    yield _share("different", totals.compared - totals.equal, totals.rate, totals.rate_interval)
    yield _share("real", totals.real, totals.real_rate, totals.real_interval)
    names = (name for name in told_statuses(totals) if name not in ("equal", "real"))
    yield "".join(f"| {name} | {getattr(totals, name)} | | |\n" for name in names) + "\n"
    yield f"Intervals are Wilson's at {totals.confidence:.4g}. {_mark(_noise(report.noise))}\n\n"
    yield f"Baseline {_code(_url(report, 'baseline'))}, target {_code(_url(report, 'target'))}\n"
    shown = 0
    for sample in samples:
        if sample.status not in ("real", "unclassified", "error") or shown > MOST_IN_MARKDOWN:
            continue
        if not shown:
            yield "\n| Sample | Status | What | Baseline | Target |\n| --- | --- | --- | --- | --- |\n"
        shown += 1
        if shown > MOST_IN_MARKDOWN:
            yield "\nMore are in the report.\n"
            continue
        what = sample.error or "" if sample.status == "error" else _difference(sample)
        told = (_cell(sample.sample_id), sample.status, _cell(what))
        yield f"| {' | '.join((*told, _cell(str(sample.baseline.said)), _cell(str(sample.target.said))))} |\n"


def _share(name: str, count: int, share: float | None, interval: Interval) -> str:
    return f"| {name} | {count} | {percent(share)} | {percent(interval.low)} to {percent(interval.high)} |\n"


def _noise(noise: Noise) -> str:
    if not noise.answers:
        return "No noise floor was measured."
    prompts = f" to prompts of up to {noise.longest_prompt} tokens" if noise.longest_prompt is not None else ""
    told = f"Noise floor of {counted(noise.answers, 'answer')}{prompts}: largest shift {nats(noise.largest_shift)}"
    return f"{told}, {counted(noise.flips, 'answer differs', 'answers differ')} when asked again."


def _mark(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _cell(text: str) -> str:
    cut = text[:_SHOWN_CHARACTERS]
    return _code(cut + ("…" if len(text) > len(cut) else ""))


def _code(text: str) -> str:
    """Between more backticks than the text has in a row: nothing in it is markup, a link or a mention."""
    flat = " ".join(text.split()).replace("|", "\\|")
    if not flat:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    return f"{fence} {flat} {fence}" if "`" in flat else f"{fence}{flat}{fence}"


def to_prometheus(report: Report, samples: Samples) -> Iterator[str]:
    """Gauges for a textfile collector; unknown values are left out."""
    totals, noise = _totals(report), report.noise
    labels = f'baseline="{_label(_url(report, "baseline"))}",target="{_label(_url(report, "target"))}"'
    yield from _gauge(
        "samples", "Samples by status.", [(f'{labels},status="{s}"', getattr(totals, s)) for s in told_statuses(totals)]
    )
    yield from _gauge(
        "divergence_rate",
        "Share of compared samples that differ, ties included.",
        _bounded(labels, totals.rate, totals.rate_interval),
    )
    yield from _gauge(
        "real_divergence_rate",
        "Share of compared samples that differ by more than a tie.",
        _bounded(labels, totals.real_rate, totals.real_interval),
    )
    yield from _gauge(
        "gate",
        "1 for the outcome of the gate.",
        [
            (f'{labels},outcome="{each}"', int(report.gate.get("outcome") == each))
            for each in ("pass", "fail", "inconclusive", "partial", *(["empty"] if totals.empty else []))
        ],
    )
    yield from _gauge("noise_floor_answers", "Answers the noise floor was measured on.", [(labels, noise.answers)])
    yield from _gauge("noise_floor_shift_nats", "Largest shift of a healthy token.", [(labels, noise.largest_shift)])
    yield from _gauge("created_timestamp_seconds", "When the report was made.", [(labels, report.created_at)])


def _bounded(labels: str, value: float | None, interval: Interval) -> list[tuple[str, float | None]]:
    named = (("low", interval.low), ("observed", value), ("high", interval.high))
    return [(f'{labels},bound="{name}"', each) for name, each in named]


def _gauge(name: str, help_text: str, values: Sequence[tuple[str, float | None]]) -> Iterator[str]:
    known = [(labels, value) for labels, value in values if value is not None]
    if known:
        yield f"# HELP ppd_acc_batch_{name} {help_text}\n# TYPE ppd_acc_batch_{name} gauge\n"
    yield from (f"ppd_acc_batch_{name}{{{labels}}} {value!r}\n" for labels, value in known)


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _url(report: Report, side: str) -> str:
    info = report.baseline if side == "baseline" else report.target
    return info.url if info is not None else "unknown"


def _name(report: Report) -> str:
    return f"{_url(report, 'baseline')} and {_url(report, 'target')}"


def _totals(report: Report) -> Totals:
    assert report.totals is not None, "a report that batch-compare makes has its totals"
    return report.totals


FORMATS: Mapping[str, Formatter] = MappingProxyType(
    {"csv": to_csv, "junit": to_junit, "markdown": to_markdown, "prometheus": to_prometheus}
)
"""By the name of the flag."""
