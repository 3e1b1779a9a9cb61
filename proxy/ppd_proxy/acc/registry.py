"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import (
    ab_test,
    aggregate,
    benchmark,
    bisect,
    compare_output,
    compare_streaming,
    diff,
    length_bias,
    regression,
    reproducibility,
    sensitivity,
    watch,
)

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *length_bias.COMMANDS,
    *regression.COMMANDS,
    *diff.COMMANDS,
    *ab_test.COMMANDS,
    *aggregate.COMMANDS,
    *compare_streaming.COMMANDS,
    *benchmark.COMMANDS,
    *reproducibility.COMMANDS,
    *sensitivity.COMMANDS,
    *bisect.COMMANDS,
    *watch.COMMANDS,
)
