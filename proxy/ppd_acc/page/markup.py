"""HTML and SVG that cannot be broken by what is shown: whatever is not Markup is escaped, in templates too."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from importlib.resources import files
from types import MappingProxyType

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ppd_acc.page.scales import number

_DIRECTIONS = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE: Mapping[int, int | str] = MappingProxyType(
    {
        **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},
        0x7F: 0x2421,
        **{code: f"\u27e8U+{code:04X}\u27e9" for code in _DIRECTIONS},
    }
)
"""Control characters as pictures, and marks that turn the direction of text as their names."""


def escaped(value: object) -> Markup:
    """Any value as text; Markup stays as it is. Lone surrogates, which no UTF-8 file can hold, become `?`."""
    if isinstance(value, Markup):
        return value
    shown = str(value).translate(_VISIBLE).encode("utf-8", "replace").decode("utf-8")
    return Markup(html.escape(shown, quote=True))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """`class_` is `class`, other underscores are hyphens; None leaves an attribute or a child out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Markup:
    return Markup("").join(escaped(each) for each in children if each is not None)


def asset(name: str) -> str:
    """The text of a file of this package."""
    return files("ppd_acc.page").joinpath(name).read_text(encoding="utf-8")


def rendered(template: str, **values: object) -> Markup:
    """A file of `templates` with these values. Ends and indentation of its lines are no part of the page."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def table(head: Iterable[object], rows: Iterable[Iterable[object]], *, caption: str, class_: str = "") -> Markup:
    """The first cell of a row is its heading. Cells that are numbers stand right."""
    return rendered("table.html", head=head, rows=map(list, rows), caption=caption, class_=f"scroll {class_}".strip())


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) or (isinstance(cell, str) and cell[:1] in "0123456789-\u2212\u2014")


def _source(name: str) -> str:
    return "".join(map(str.strip, asset(f"templates/{name}").splitlines()))


def short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} \u2026 ({len(text) - most:,} more characters)"


_TEMPLATES = Environment(loader=FunctionLoader(_source), autoescape=True, finalize=escaped, undefined=StrictUndefined)
_TEMPLATES.tests["shown_right"] = _is_number
_TEMPLATES.filters |= {"grouped": "{:,}".format, "number": number, "short": short}
