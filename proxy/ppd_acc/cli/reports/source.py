"""Where a report comes from: a file, or a running proxy."""

from __future__ import annotations

import argparse

import msgspec

from ppd_acc.cli.command import Context
from ppd_acc.cli.flags import access_of, add_access_flags, positive
from ppd_acc.cli.given import url_of
from ppd_acc.data.from_proxy import LIMIT_SAMPLES, read_proxy
from ppd_acc.data.report import Report, read_report
from ppd_acc.data.report_files import totals_of
from ppd_acc.outcome import Mistake


def add_report_flags(
    parser: argparse.ArgumentParser,
    *names: str,
    dest: str = "report",
    has_access: bool = True,
    limit_flag: str = "--limit",
) -> None:
    """Where a report comes from: a file (`names`, by default `--report` and `--input`), or `--from-proxy`."""
    group = parser.add_argument_group("report")
    group.add_argument(*(names or ("--report", "--input")), dest=dest, metavar="FILE", help="what batch-compare wrote")
    group.add_argument("--from-proxy", metavar="URL", help="instead: the accuracy samples of a running ppd-proxy")
    group.add_argument(
        limit_flag, dest="proxy_limit", type=positive, default=LIMIT_SAMPLES, metavar="N",
        help=f"newest samples that --from-proxy reads (default {LIMIT_SAMPLES})",
    )  # fmt: skip
    if has_access:
        add_access_flags(parser)


async def report_from(
    args: argparse.Namespace, context: Context, *, dest: str = "report", flag: str = "--report",
    has_both_answers: bool = False,
) -> Report:  # fmt: skip
    """The report that `add_report_flags` names. `has_both_answers`: only samples with an answer of both engines, which
    scored samples of a proxy have not. Raises Mistake and Trouble."""
    file, url = getattr(args, dest), args.from_proxy
    if file is not None and url is not None:
        raise Mistake(f"{flag} and --from-proxy are both given; give one of them")
    if url is None:
        if file is None:
            raise Mistake(f"{flag} is missing; give a report of batch-compare, or --from-proxy with a proxy's URL")
        return read_report(context.directory / file, flag)
    access = access_of(args, context.settings)
    report = await read_proxy(url_of("--from-proxy", url), access, args.proxy_limit)
    if not has_both_answers:
        return report
    kept = [sample for sample in report.samples if sample.metadata.get("method") == "replay"]
    if not kept:
        raise Mistake(
            f"--from-proxy {url}: none of its {len(report.samples)} samples has an answer of the baseline;"
            " start the proxy with --shadow-method replay"
        )
    return msgspec.structs.replace(report, samples=kept, totals=totals_of(each.status for each in kept))
