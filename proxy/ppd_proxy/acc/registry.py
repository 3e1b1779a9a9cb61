"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import (
    ab_test,
    aggregate,
    annotate,
    batch_compare,
    cache,
    cluster,
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
    snapshot,
    summary,
)

COMMANDS: tuple[Command, ...] = (
    *compare_output.COMMANDS,
    *batch_compare.COMMANDS,
    *snapshot.COMMANDS,
    *entropy.COMMANDS,
    *length_bias.COMMANDS,
    *regression.COMMANDS,
    *diff.COMMANDS,
    *ab_test.COMMANDS,
    *aggregate.COMMANDS,
    *explain.COMMANDS,
    *cluster.COMMANDS,
    *filter.COMMANDS,
    *annotate.COMMANDS,
    *summary.COMMANDS,
    *init.COMMANDS,
    *config_validate.COMMANDS,
    *cache.COMMANDS,
    *history.COMMANDS,
    *dataset_stats.COMMANDS,
    *profiles.COMMANDS,
    *completion.COMMANDS,
)
