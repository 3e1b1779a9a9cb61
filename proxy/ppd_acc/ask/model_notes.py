"""A note where an engine serves another model than the baseline: then whatever differs needs no other reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ppd_acc.ask.engines import Engine
from ppd_acc.outcome import Result


def model_notes(baseline: str | None, others: Iterable[tuple[str, str | None]]) -> list[str]:
    """A sentence for each URL that serves another model; unknown names differ from nothing."""
    return [
        f"{url} serves {model!r}, the baseline {baseline!r}"
        for url, model in others
        if baseline is not None and model is not None and model != baseline
    ]


def with_model_notes(result: Result, baseline: Engine, *others: Engine) -> Result:
    """The result, with the notes of its engines before its own."""
    notes = model_notes(baseline.known_model, [(each.url, each.known_model) for each in others])
    return replace(result, notes=(*notes, *result.notes))
