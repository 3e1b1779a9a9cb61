"""All commands, in the order of the help text."""

from __future__ import annotations

from ppd_proxy.acc.command import Command
from ppd_proxy.acc.commands import (
    check_kv,
    compare_logprobs,
    compare_output,
    detect,
    diagnose,
    fingerprint,
    healthcheck,
)

COMMANDS: tuple[Command, ...] = (
    *diagnose.COMMANDS,
    *healthcheck.COMMANDS,
    *compare_output.COMMANDS,
    *compare_logprobs.COMMANDS,
    *check_kv.COMMANDS,
    *detect.COMMANDS,
    *fingerprint.COMMANDS,
)
