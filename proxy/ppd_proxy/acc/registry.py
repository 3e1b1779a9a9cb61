"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import check_kv, compare_output

COMMANDS: tuple[Command, ...] = (*check_kv.COMMANDS, *compare_output.COMMANDS)
