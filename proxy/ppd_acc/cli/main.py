"""The `ppd-acc` command (also installed as `xpyd-acc`). Exit codes: `command.Exit`. Never ends in a traceback."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from ppd_acc.cli.command import Command
from ppd_acc.cli.given import Given
from ppd_acc.cli.interrupts import Terminated, ends_as_interrupted, until_terminated
from ppd_acc.cli.outputs import check_outputs
from ppd_acc.cli.parser import build_parser
from ppd_acc.cli.registry import COMMANDS, Listed
from ppd_acc.cli.settings import Settings, load_settings
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import is_verbatim, shown
from ppd_shell.settings import ConfigError
from ppd_wire.json.strict import to_json

log = logging.getLogger("ppd_acc")
VERSION = 1
"""Of what `--json` writes; the schema is docs/ppd-acc.schema.json."""
_WIDTH_WHEN_PIPED = 160


def main(argv: Sequence[str] | None = None, commands: Sequence[Listed] = COMMANDS) -> int:
    """Runs one command and returns the exit code."""
    try:
        with ends_as_interrupted():
            return _main(argv, commands)
    except KeyboardInterrupt:
        return Exit.INFRASTRUCTURE
    except Exception as error:  # before there is a command, or in telling what it said
        log.debug("a defect", exc_info=error)
        with contextlib.suppress(OSError, ValueError):  # a stream that is closed
            sys.stderr.write(f"ppd-acc: a defect of ppd-acc: {type(error).__name__}: {error}\n")
        return Exit.INFRASTRUCTURE


def _main(argv: Sequence[str] | None, commands: Sequence[Listed]) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever an engine, a file or an argument says can be printed
            stream.reconfigure(errors="backslashreplace")
    out, err = _console(sys.stdout), _console(sys.stderr)
    try:
        args = build_parser(commands).parse_args(arguments)
        check_outputs(vars(args), Path())
    except SystemExit as stop:  # how argparse ends --help and --version
        return stop.code if isinstance(stop.code, int) else 0
    except Mistake as mistake:
        err.print(Text(f"ppd-acc: {mistake}"))
        return Exit.USAGE
    _set_up_logging(args.verbose or 0, is_quiet=args.quiet)
    command: Command = args.command
    ending = _Ending(name=command.name, out=out, err=err, json=args.json, is_quiet=args.quiet)
    try:
        return ending.tell(_run(command, args, out, err))
    except (Mistake, ConfigError) as mistake:
        return ending.fail(Exit.USAGE, str(mistake))
    except Trouble as trouble:
        return ending.fail(Exit.INFRASTRUCTURE, str(trouble))
    except KeyboardInterrupt:
        return ending.fail(Exit.INFRASTRUCTURE, "interrupted")
    except Exception as error:  # a defect: told in one line, with -vv in full
        log.debug("a defect", exc_info=error)
        why = f"a defect of ppd-acc: {type(error).__name__}: {error} (-vv shows where)"
        return ending.fail(Exit.INFRASTRUCTURE, why)


def _run(command: Command, args: argparse.Namespace, out: Console, err: Console) -> Result:
    # `config validate` and `init` work on a file that may be wrong.
    settings = Settings() if command.name in ("config validate", "init") else load_settings(args.config, Path())
    surroundings = Surroundings(
        console=out,
        errors=err,
        wall_clock=time.time,  # noqa: TID251 the composition root of this program
    )
    result = command.run(command.options(Given(args, settings, Path())), surroundings)
    if inspect.iscoroutine(result):
        import uvloop  # here, because most commands ask no engine

        try:
            result = uvloop.run(until_terminated(result))
        except Terminated:
            raise KeyboardInterrupt from None
    assert isinstance(result, Result)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """How a command's end is told: to people on `out` and `err`, and where `--json` says."""

    name: str
    out: Console
    err: Console
    json: str | None
    is_quiet: bool

    def tell(self, result: Result) -> int:
        try:
            if self.json is not None:
                self._write_json(result.exit, result.data, result.notes)
            if not self.is_quiet:
                for note in result.notes:
                    self.err.print(Text(f"note: {note}"))
                if self.json != "-":
                    for part in result.view:
                        self.out.print(shown(part), soft_wrap=is_verbatim(part))
            sys.stdout.flush()
        except BrokenPipeError:  # of JSON; people who have read enough change no verdict
            _silence(sys.stdout)
            return Exit.INFRASTRUCTURE
        except OSError as error:
            where = f"--json {self.json}" if error.filename is not None else "standard output"
            self.err.print(Text(f"ppd-acc: {where}: {error.strerror or error}"))
            _silence(sys.stdout)
            return Exit.INFRASTRUCTURE
        return result.exit

    def fail(self, code: Exit, message: str) -> int:
        """The reason on standard error, and as JSON where JSON was asked for; one that cannot be told leaves the
        code."""
        with contextlib.suppress(OSError):
            self.err.print(Text(f"ppd-acc {self.name}: {message}"))
            if self.json is not None:
                try:
                    self._write_json(code, {"message": message}, ())
                except OSError as error:
                    self.err.print(Text(f"ppd-acc: --json {self.json}: {error}"))
        return code

    def _write_json(self, code: Exit, data: Mapping[str, Any], notes: Sequence[str]) -> None:
        head = {"kind": self.name, "version": VERSION, "exit": int(code), "outcome": code.name.lower()}
        document = {**head, "notes": list(notes), **data}
        if self.json == "-":
            sys.stdout.write(to_json(document, sys.stdout.encoding or "utf-8") + "\n")
        elif self.json is not None:
            Path(self.json).write_text(to_json(document) + "\n", encoding="utf-8")


class _Console(Console):
    """Goes silent where its reader has gone: what the command found out still decides how it ends."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _silence(self.file)


def _silence(stream: IO[str]) -> None:
    """Whatever is still written, at the latest when Python ends, goes nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream that is no file, or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _console(stream: Any) -> Console:
    """Colours and the terminal's width on a terminal; plain and wide where it is piped."""
    return _Console(file=stream, width=None if stream.isatty() else _WIDTH_WHEN_PIPED, highlight=False)


def _set_up_logging(verbosity: int, *, is_quiet: bool) -> None:
    level = logging.ERROR if is_quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr, force=True)


if __name__ == "__main__":
    sys.exit(main())
