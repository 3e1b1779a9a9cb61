"""init: a configuration file to begin with."""

from __future__ import annotations

import argparse
import tomllib
from string import Template

from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import add_pair_flags
from ppd_acc.cli.given import url_of
from ppd_acc.cli.settings import FILE_NAMES, mistakes_of, unknown_of
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Mistake, Result

_STARTER = Template("""\
# Settings of ppd-acc; found in the working directory, or given with --config FILE.
# A flag on the command line wins over the profile, the profile over this file.

[defaults]
baseline = $baseline  # the unsplit engine
target = $target  # what is held against it
# model = "NAME"         # default: the first that the engine lists
# api_key = "KEY"        # better: the environment variable PPD_ACC_API_KEY
# target_api_key = "KEY" # where the target has another one: PPD_ACC_TARGET_API_KEY
# endpoint = "chat"      # or "completions"
# headers = { "x-team" = "search" }
temperature = 0.0        # greedy; anything else makes differences that mean nothing
seed = 42
max_tokens = 64          # length limit of an answer
top_k = 5                # logprobs per token, for the margins of a difference
timeout = 120.0          # seconds, of one answer
retries = 3              # attempts after the first
concurrency = 8          # requests at once, per engine
# noise_floor = 20       # answers that the baseline gives twice; each command has its own default

[profiles.long]          # --profile long; greedy and stochastic are built in
temperature = 0.0
max_tokens = 512

[batch]
# dataset = "prompts.jsonl"
# fail_threshold = 0.01  # the highest share of real divergences that passes
confidence_level = 0.95

[report]
output = "report.html"
""")
_URLS = (("baseline", "http://aggregated:8000"), ("target", "http://pd-endpoint:8001"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", default=FILE_NAMES[0], help=f"default {FILE_NAMES[0]}")
    parser.add_argument("--force", action="store_true", help="overwrite a file that is there")
    add_pair_flags(parser)


def run(args: argparse.Namespace, context: Context) -> Result:
    path = context.directory / args.output
    if path.is_dir() or not path.parent.is_dir():
        raise Mistake(f"--output {args.output}: it must be a file in a directory that exists")
    if path.exists() and not args.force:
        raise Mistake(f"--output {args.output}: it exists; --force overwrites it")
    text = starter(**{name: url_of(f"--{name}", getattr(args, name) or url) for name, url in _URLS})
    write_whole(path, (text.encode(),), "--output")
    lines = [Text(f"wrote {args.output}"), Text(f"ppd-acc config validate {args.output} checks it")]
    return Result(exit=Exit.PASS, data={"path": str(args.output)}, view=tuple(lines))


def starter(baseline: str, target: str) -> str:
    """The file's text."""
    text = _STARTER.substitute(baseline=_quoted(baseline), target=_quoted(target))
    tables = tomllib.loads(text)
    assert not [*mistakes_of(tables), *unknown_of(tables)]
    return text


def _quoted(text: str) -> str:
    """A TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in escaped) + '"'


COMMANDS = (Command(name="init", add_arguments=add_arguments, run=run),)
