"""init: a configuration file to begin with."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

from ppd_acc.cli.flags import add_pair_flags
from ppd_acc.cli.options import flag, flags, switch
from ppd_acc.cli.settings import FILE_NAMES, mistakes_of, unknown_of
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    output: str = flag("-o", "--output", metavar="FILE", default=FILE_NAMES[0], help=f"default {FILE_NAMES[0]}")
    force: bool = switch("overwrite a file that is there")
    urls: Mapping[str, str] = flags(
        add_pair_flags, lambda given: {side: given.url(side) or url for side, url in _URLS}
    )  # fmt: skip


def run(options: Options, surroundings: Surroundings) -> Result:
    output, path = options.output, surroundings.directory / options.output
    if path.is_dir() or not path.parent.is_dir():
        raise Mistake(f"--output {output}: it must be a file in a directory that exists")
    if path.exists() and not options.force:
        raise Mistake(f"--output {output}: it exists; --force overwrites it")
    write_whole(path, (starter(**options.urls).encode(),), "--output")
    lines = [f"wrote {output}", f"ppd-acc config validate {output} checks it"]
    return Result(exit=Exit.PASS, data={"path": output}, view=tuple(lines))


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
