"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import (
    ab_test,
    aggregate,
    batch_compare,
    cache,
    compare_output,
    diff,
    length_bias,
    regression,
    snapshot,
)

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *batch_compare.COMMANDS,
    *length_bias.COMMANDS,
    *regression.COMMANDS,
    *diff.COMMANDS,
    *ab_test.COMMANDS,
    *aggregate.COMMANDS,
    *snapshot.COMMANDS,
    *cache.COMMANDS,
)
