"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import benchmark, compare_output, compare_streaming, reproducibility, sensitivity, watch

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *compare_streaming.COMMANDS,
    *benchmark.COMMANDS,
    *reproducibility.COMMANDS,
    *sensitivity.COMMANDS,
    *watch.COMMANDS,
)
