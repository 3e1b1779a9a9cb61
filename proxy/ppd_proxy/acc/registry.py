"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import (
    ab_test,
    aggregate,
    annotate,
    compare_output,
    completion,
    config_validate,
    dataset_stats,
    diff,
    entropy,
    explain,
    filter,
    history,
    init,
    length_bias,
    profiles,
    regression,
    summary,
)

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *entropy.COMMANDS,
    *length_bias.COMMANDS,
    *regression.COMMANDS,
    *diff.COMMANDS,
    *ab_test.COMMANDS,
    *aggregate.COMMANDS,
    *explain.COMMANDS,
    *filter.COMMANDS,
    *annotate.COMMANDS,
    *summary.COMMANDS,
    *init.COMMANDS,
    *config_validate.COMMANDS,
    *history.COMMANDS,
    *dataset_stats.COMMANDS,
    *profiles.COMMANDS,
    *completion.COMMANDS,
)
