"""completion: a script with which a shell completes ppd-acc."""

from __future__ import annotations

from dataclasses import dataclass

from ppd_acc.cli.completions import SHELLS, Shell, script_of
from ppd_acc.cli.options import flag
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import verbatim


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    shell: Shell = flag("shell", choices=SHELLS, help="for which shell")
    output: str | None = flag("-o", "--output", metavar="FILE", help="default: standard output")


def run(options: Options, surroundings: Surroundings) -> Result:
    from ppd_acc.cli.parser import build_parser

    script = script_of(build_parser(is_complete=True), options.shell)
    data = {"shell": options.shell, "script": script}
    if options.output is None:
        return Result(exit=Exit.PASS, data=data, view=(verbatim(script.rstrip("\n")),))
    write_whole(surroundings.directory / options.output, (script.encode(),), "--output")
    return Result(exit=Exit.PASS, data=data, view=(f"wrote {options.output}",))
