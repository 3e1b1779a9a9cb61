"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import (
    annotate,
    batch_compare,
    cache,
    check_kv,
    compare_output,
    completion,
    config_validate,
    explain,
    filter,
    init,
    profiles,
    report,
    snapshot,
    summary,
)

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *check_kv.COMMANDS,
    *report.COMMANDS,
    *batch_compare.COMMANDS,
    *explain.COMMANDS,
    *filter.COMMANDS,
    *annotate.COMMANDS,
    *summary.COMMANDS,
    *snapshot.COMMANDS,
    *init.COMMANDS,
    *config_validate.COMMANDS,
    *cache.COMMANDS,
    *profiles.COMMANDS,
    *completion.COMMANDS,
)
