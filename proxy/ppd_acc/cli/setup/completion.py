"""completion: a script with which a shell completes ppd-acc."""

from __future__ import annotations

import argparse

from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.completions import SHELLS, script_of
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Result
from ppd_acc.views import verbatim


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="for which shell")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")


def run(args: argparse.Namespace, context: Context) -> Result:
    from ppd_acc.cli.parser import build_parser

    script = script_of(build_parser(is_complete=True), args.shell)
    data = {"shell": args.shell, "script": script}
    if args.output is None:
        return Result(exit=Exit.PASS, data=data, view=(verbatim(script.rstrip("\n")),))
    write_whole(context.directory / args.output, (script.encode(),), "--output")
    return Result(exit=Exit.PASS, data=data, view=(Text(f"wrote {args.output}"),))


COMMANDS = (Command(name="completion", add_arguments=add_arguments, run=run),)
