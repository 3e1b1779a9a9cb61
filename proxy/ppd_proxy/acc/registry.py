"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import (
    annotate,
    compare_output,
    completion,
    config_validate,
    explain,
    filter,
    init,
    profiles,
    report,
    summary,
)

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *report.COMMANDS,
    *explain.COMMANDS,
    *filter.COMMANDS,
    *annotate.COMMANDS,
    *summary.COMMANDS,
    *init.COMMANDS,
    *config_validate.COMMANDS,
    *profiles.COMMANDS,
    *completion.COMMANDS,
)
