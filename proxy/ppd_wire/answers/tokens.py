"""How vLLM names tokens when asked for `return_tokens_as_token_ids`."""

from __future__ import annotations

BY_ID = "token_id:"
"""What a name begins with; the id follows."""


def id_of(name: str) -> int | None:
    """The id that the name gives; None for a token that is named by its text."""
    text = name.removeprefix(BY_ID)
    return int(text) if text is not name and text.isascii() and text.isdigit() else None
