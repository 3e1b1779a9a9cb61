"""The noise floor as a command measures it: with progress, and with a way out where an engine cannot be measured."""

from __future__ import annotations

from collections.abc import Sequence

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.engines import Engine, EngineTrouble, Question
from ppd_acc.compare.compare import noise_floor
from ppd_acc.outcome import Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress
from ppd_accuracy.answers.flips import Floor
from ppd_accuracy.statistics.intervals import wilson

_FLAKY_SHARE = 0.05


def is_flaky(floor: Floor) -> bool:
    """Whether an engine answers more than one in twenty differently when asked again (95 % sure); a greedy and seeded
    one that does is broken."""
    return floor.answers > 0 and wilson(floor.flips, floor.answers, 0.95).low > _FLAKY_SHARE


async def measured_floor(
    engine: Engine, questions: Sequence[Question], sampling: Sampling, count: int, context: Surroundings, name: str
) -> Floor:
    """`name` is the flag that the engine was given by. Raises Trouble."""
    progress = Progress(context.errors, "noise floor", count)
    try:
        return await noise_floor(engine, questions, sampling, count, progress)
    except EngineTrouble as trouble:
        # Without a key nothing else would be answered either.
        way_out = "" if trouble.reason in ("status_401", "status_403") else " (--noise-floor 0 does without it)"
        raise Trouble(f"--{name}: noise floor: {trouble}{way_out}") from None
