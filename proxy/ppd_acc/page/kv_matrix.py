"""The layers-by-tokens matrix in what `check-kv --json` wrote, for the report's heat map."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import msgspec

from ppd_acc.outcome import Mistake
from ppd_acc.page.kv_picture import Heat, Panel, Row

_SHOWN_ARRAYS = 3
_NAMES = MappingProxyType({"key": "K", "value": "V", "latent": "Latent"})


class _Finding(msgspec.Struct):
    text: str = ""
    arrays: list[str] = []

    @property
    def line(self) -> str:
        more = f" and {len(self.arrays) - _SHOWN_ARRAYS} more" if len(self.arrays) > _SHOWN_ARRAYS else ""
        return f"{self.text} [{', '.join(self.arrays[:_SHOWN_ARRAYS])}{more}]" if self.arrays else self.text


class _Row(msgspec.Struct):
    """`relative_l2` has one number for each of `starts`, null where something was not finite."""

    name: str
    tokens: int
    starts: list[int]
    relative_l2: list[float | None]
    layer: int | None = None
    kind: str | None = None


class _Document(msgspec.Struct):
    kind: str = ""
    match: bool | None = None
    heat_map: list[_Row] | None = None
    findings: list[_Finding] = []


_decoder = msgspec.json.Decoder(_Document)


def read_heat(path: Path, flag: str) -> Heat:
    """One panel per kind of tensor, layers in their order. Raises Mistake, which names the flag."""
    try:
        document = _decoder.decode(path.read_bytes())
    except OSError as error:
        raise Mistake(f"{flag} {path}: {error.strerror or error}") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Mistake(f"{flag} {path}: not a result of check-kv: {error}") from None
    if document.kind != "check-kv" or document.heat_map is None:
        raise Mistake(f"{flag} {path}: kind is {document.kind!r}; it must be what check-kv --json wrote")
    rows = [each for each in document.heat_map if each.tokens > 0 and each.starts]
    for each in rows:
        if len(each.relative_l2) != len(each.starts) or each.starts != sorted({*each.starts}):
            raise Mistake(
                f"{flag} {path}: {each.name!r} has {len(each.relative_l2)} errors for {len(each.starts)} starts"
            )
        if each.starts[0] < 0 or each.starts[-1] >= each.tokens:
            raise Mistake(f"{flag} {path}: {each.name!r} has starts outside its {each.tokens} tokens")
    panels = []
    for kind in dict.fromkeys(each.kind for each in rows):
        own = sorted(
            (each for each in rows if each.kind == kind), key=lambda each: -1 if each.layer is None else each.layer
        )
        panels.append(Panel(name=_NAMES.get(kind or "", kind or "Arrays"), rows=tuple(_row(each) for each in own)))
    findings = tuple(each.line for each in document.findings if each.text)
    return Heat(panels=tuple(panels), is_match=document.match, findings=findings)


def _row(row: _Row) -> Row:
    return Row(
        label=str(row.layer) if row.layer is not None else row.name,
        starts=tuple(row.starts),
        values=tuple(row.relative_l2),
        tokens=row.tokens,
    )
