"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import compare_logprobs, compare_output, detect, diagnose, fingerprint, healthcheck

COMMANDS: tuple[Command, ...] = (
    *diagnose.COMMANDS,
    *healthcheck.COMMANDS,
    *compare_output.COMMANDS,
    *compare_logprobs.COMMANDS,
    *detect.COMMANDS,
    *fingerprint.COMMANDS,
)
