"""What an engine's refusal says, in one short line: some answer with a page of HTML, or with much JSON."""

from __future__ import annotations

import html
import re

_LONGEST = 200
_READ_BYTES = 20_000
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_PAGE = re.compile(r"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def told_by(body: bytes, secret: str | None = None) -> str:
    """The body as one line of at most 200 characters, a page of HTML by its title. `secret` is never repeated."""
    text = body[:_READ_BYTES].decode(errors="replace")
    if _PAGE.match(text):
        title = _TITLE.search(text)
        name = _line(html.unescape(title[1])) if title is not None else ""
        text = f"an HTML page, {name!r}" if name else "an HTML page"
    elif text.lstrip().startswith("<"):
        text = html.unescape(_TAG.sub(" ", text))
    if secret:
        text = text.replace(secret, "(the key)")
    text = _line(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _line(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())
