"""Notes and labels on a report's samples, in a file beside it: `<report>.annotations.json`.

    {"annotations": {SAMPLE_ID: {"sample_id": SAMPLE_ID, "note": TEXT or null, "labels": [TEXT, ...]}}}

The published tool reads and writes the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import msgspec

from ppd_acc.data.report import Report, Sample
from ppd_acc.files import write_whole
from ppd_acc.outcome import Mistake


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wrote on one sample."""

    sample_id: str = ""
    note: str | None = None
    labels: list[str] = []

    @property
    def is_empty(self) -> bool:
        return not self.note and not self.labels

    @property
    def line(self) -> str:
        """For people: `[label, label] note`."""
        labels = f"[{', '.join(self.labels)}]" if self.labels else ""
        return " ".join(part for part in (labels, self.note or "") if part)


class _File(msgspec.Struct, kw_only=True):
    annotations: dict[str, Annotation] = {}


_file = msgspec.json.Decoder(_File)
NOTHING = Annotation()


def sidecar(report: str | Path) -> Path:
    """Where a report's annotations are."""
    path = Path(report)
    return path.with_name(f"{path.name}.annotations.json")


def read_annotations(report: str | Path) -> dict[str, Annotation]:
    """By sample id; nothing where there is no file. Raises Mistake for a file that is no such thing."""
    path = sidecar(report)
    try:
        found = _file.decode(path.read_bytes()).annotations
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror or error}") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Mistake(f"{path}: not a file of annotations: {error}") from None
    return {sample_id: msgspec.structs.replace(each, sample_id=sample_id) for sample_id, each in found.items()}


def write_annotations(report: str | Path, annotations: Mapping[str, Annotation]) -> Path:
    """Without the empty ones. Raises Trouble."""
    path = sidecar(report)
    kept = {sample_id: each for sample_id, each in sorted(annotations.items()) if not each.is_empty}
    body = msgspec.json.format(msgspec.json.encode({"annotations": kept}), indent=2)
    write_whole(path, (body, b"\n"), "annotations")
    return path


def sample_of(report: Report, sample_id: str, flag: str = "--sample") -> Sample:
    """Raises Mistake for an unknown id, with those that look like it."""
    found = next((sample for sample in report.samples if sample.sample_id == sample_id), None)
    if found is None:
        known = [sample.sample_id for sample in report.samples]
        close = get_close_matches(sample_id, known, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(close)}?" if close else f"; the first ones are {', '.join(known[:3])}"
        raise Mistake(f"{flag} {sample_id}: no such sample among {len(known)}{hint if known else ''}")
    return found
