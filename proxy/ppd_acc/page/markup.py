"""HTML and SVG that cannot be broken by what is shown: whatever is not Markup is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from types import MappingProxyType

_VOID = ("meta", "br", "input", "col", "link")
_DIRECTIONS = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE: Mapping[int, int | str] = MappingProxyType(
    {
        **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},
        0x7F: 0x2421,
        **{code: f"\u27e8U+{code:04X}\u27e9" for code in _DIRECTIONS},
    }
)
"""Control characters as pictures, and marks that turn the direction of text as their names."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Any value as text; Markup stays as it is. Lone surrogates, which no UTF-8 file can hold, become `?`."""
    if isinstance(value, Markup):
        return value
    shown = str(value).translate(_VISIBLE).encode("utf-8", "replace").decode("utf-8")
    return Markup(html.escape(shown, quote=True))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """`class_` is `class`, other underscores are hyphens; None and False leave an attribute or a child out."""
    told = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{told}>")
    return Markup(f"<{tag}{told}>{join(children)}</{tag}>")


def join(children: Iterable[object], separator: str = "") -> Markup:
    return Markup(escaped(separator).join(escaped(each) for each in children if each is not None and each is not False))


def table(head: Iterable[object], rows: Iterable[Iterable[object]], *, caption: str, class_: str = "") -> Markup:
    """The first cell of a row is its heading. Cells that are numbers stand right."""
    heads = join(element("th", each, scope="col") for each in head)
    body = join(_row(list(row)) for row in rows)
    told = element("table", element("caption", caption), element("thead", element("tr", heads)), element("tbody", body))
    return element("div", told, class_=f"scroll {class_}".strip(), tabindex="0", role="region", aria_label=caption)


def _row(cells: list[object]) -> Markup:
    first = element("th", cells[0], scope="row")
    return element("tr", first, *(element("td", each, class_=_alignment(each)) for each in cells[1:]))


def _alignment(cell: object) -> str | None:
    is_number = isinstance(cell, int | float) or (isinstance(cell, str) and cell[:1] in "0123456789-\u2212\u2014")
    return "number" if is_number else None


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escaped(value)}"'
