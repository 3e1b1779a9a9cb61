"""The noise floor as a command measures it: with progress, and with a way out where an engine cannot be measured."""

from __future__ import annotations

from collections.abc import Sequence

from ppd_acc.ask.access import Terms
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import noise_floor
from ppd_acc.outcome import Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.statistics.intervals import wilson

_FLAKY_SHARE = 0.05


def is_flaky(floor: ReplayNoise) -> bool:
    """Whether an engine answers more than one in twenty differently when asked again (95 % sure); a greedy and seeded
    one that does is broken."""
    return floor.answers > 0 and wilson(floor.flips, floor.answers, 0.95).low > _FLAKY_SHARE


async def terms_floor(
    engine: Engine, questions: Sequence[Question], terms: Terms, surroundings: Surroundings
) -> ReplayNoise:  # fmt: skip
    """As the terms have it. Raises EngineTrouble."""
    progress = Progress(surroundings.errors, "noise floor", terms.noise_answers)
    return await noise_floor(engine, questions, terms.sampling, terms.noise_answers, progress)


async def measured_floor(
    engine: Engine, questions: Sequence[Question], terms: Terms, surroundings: Surroundings, name: str = "baseline"
) -> ReplayNoise:
    """The same for a command that could do without one. `name` is the flag that the engine was given by. Raises
    Trouble."""
    try:
        return await terms_floor(engine, questions, terms, surroundings)
    except EngineTrouble as trouble:
        # Without a key nothing else would be answered either.
        way_out = "" if trouble.reason in ("status_401", "status_403") else " (--noise-floor 0 does without it)"
        raise Trouble(f"--{name}: noise floor: {trouble}{way_out}") from None
