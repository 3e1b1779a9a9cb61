"""The `ppd-proxy` command. Exit status: 0 well, 1 could not start, 2 a mistake in usage or configuration."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib.metadata import version

from ppd_proxy.cli import check, serve


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser, commands = build_parser(arguments[:1])
    try:
        args, rest = parser.parse_known_args(arguments)
    except SystemExit as stop:  # how argparse ends --help, --version and what it cannot parse
        return stop.code if isinstance(stop.code, int) else 0
    mistakes = list(_usage_mistakes(rest, commands[args.command]))
    if args.command == "serve":
        return serve.run(args, mistakes)
    if args.command == "check":
        return check.run(args, mistakes)
    if mistakes:
        serve.report(mistakes)
        return 2
    from ppd_sim.command import run

    return run(args)


def build_parser(chosen: Sequence[str]) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser and its subcommands' parsers; `simulate` gets its options only when it is the one `chosen`."""
    parser = argparse.ArgumentParser(prog="ppd-proxy", description="Proxy for split vLLM clusters.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ppd-proxy {version('ppd-proxy')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="serve|check|simulate")
    summaries = {
        "serve": "run the proxy",
        "check": "print the effective configuration and every mistake in it",
        "simulate": "run a simulated vLLM engine",
    }
    commands = {
        name: subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        for name, text in summaries.items()
    }
    serve.add_arguments(commands["serve"])
    serve.add_arguments(commands["check"])
    if "simulate" in chosen:
        from ppd_sim.command import add_arguments

        add_arguments(commands["simulate"])
    return parser, commands


def _usage_mistakes(rest: Sequence[str], command: argparse.ArgumentParser) -> Iterator[str]:
    """A sentence for each argument that no option took. Values of unknown flags are not shown: they may be secrets."""
    known = [option for action in command._actions for option in action.option_strings]
    previous = ""
    for argument in rest:
        flag = argument.split("=", 1)[0]
        if argument.startswith("-"):
            close = get_close_matches(flag, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"see ppd-proxy {command.prog.split()[-1]} --help"
            yield f"{flag}: no such flag; {hint}"
        elif not previous.startswith("-"):
            yield f"{argument!r}: unexpected argument; every setting has a flag"
        previous = argument


if __name__ == "__main__":
    sys.exit(main())
