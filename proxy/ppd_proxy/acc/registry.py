"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import batch_compare, cache, compare_output, snapshot

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *batch_compare.COMMANDS,
    *snapshot.COMMANDS,
    *cache.COMMANDS,
)
