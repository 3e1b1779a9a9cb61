"""All commands, in the order of the help text: what they are called and do, and the module (below `cli`)
that has them.

A start imports the module of its own command only: all together take a second and a half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from ppd_acc.cli.command import Command, command


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A command as the help text lists it; `load` imports it. `name` has a space where it has subcommands."""

    name: str
    summary: str
    load: Callable[[], Command]


def _listed(name: str, module: str, summary: str) -> Listed:
    return Listed(name=name, summary=summary, load=partial(_load, name, module))


def _load(name: str, module: str) -> Command:
    """A module has `Options` and `run`, or of its subcommand `save` `SaveOptions` and `run_save`."""
    loaded = import_module(f"ppd_acc.cli.{module}")
    if hasattr(loaded, "Options"):
        return command(name, loaded.Options, loaded.run)
    sub = name.partition(" ")[2]
    return command(name, getattr(loaded, f"{sub.title()}Options"), getattr(loaded, f"run_{sub}"))


COMMANDS: tuple[Listed, ...] = (
    _listed("diagnose", "experiments.diagnose",
            "Find the stage of a split deployment that breaks: the whole pipeline in one command."),
    _listed("healthcheck", "engines.healthcheck",
            "Check that engines are reachable, what they can do, and that they are comparable."),
    _listed("compare-output", "compare.compare_output", "Compare the answers of two engines to one prompt."),
    _listed("compare-logprobs", "compare.compare_logprobs",
            "Compare two engines' logprobs token by token, against the noise floor."),
    _listed("check-kv", "kv.check_kv", "Compare two KV dumps up to rounding, and say what happened where they differ."),
    _listed("report", "reports.report", "Make one HTML page of a batch report."),
    _listed("batch-compare", "batch.batch_compare", "Compare the answers of engines to a whole dataset."),
    _listed("entropy", "reports.entropy", "How sure both engines are, with bounds for what is not listed."),
    _listed("length-bias", "reports.length_bias", "Test whether the target's answers are longer or shorter."),
    _listed("sensitivity", "experiments.sensitivity",
            "Change a prompt a little, again and again: do the engines part?"),
    _listed("regression", "runs.regression", "Find the samples that diverge now and did not before."),
    _listed("diff", "runs.diff", "Show two batch reports side by side."),
    _listed("ab-test", "runs.ab_test", "Test whether the second of two batch reports diverges more often."),
    _listed("aggregate", "runs.aggregate", "Put several batch reports together."),
    _listed("compare-streaming", "compare.compare_streaming", "Compare streamed answers of two engines by token ids."),
    _listed("detect", "engines.detect",
            "Tell what an endpoint is, with the evidence: unsplit, prefill, decode, proxy, router."),
    _listed("bisect", "experiments.bisect", "Find the prompt length or the load from which on two engines part."),
    _listed("snapshot capture", "batch.snapshot", "Keep a baseline's answers to a dataset."),
    _listed("snapshot compare", "batch.snapshot", "Hold engines against kept answers."),
    _listed("snapshot show", "batch.snapshot", "Say what a snapshot has."),
    _listed("fingerprint", "experiments.fingerprint",
            "Tell a model by its answers to fixed probes, or whether two engines are the same."),
    _listed("reproducibility", "experiments.reproducibility", "Ask again and again: how often is the answer the same?"),
    _listed("explain", "reports.explain", "What happened at one sample's first difference."),
    _listed("cluster", "reports.cluster", "Group divergent samples that look alike."),
    _listed("filter", "reports.filter", "Keep the samples that meet all conditions."),
    _listed("annotate", "reports.annotate", "Put notes and labels on samples of a report."),
    _listed("summary", "reports.summary", "A report in short, with intervals."),
    _listed("benchmark", "engines.benchmark", "Measure the latency and throughput of one engine."),
    _listed("watch", "watch.watch", "Compare two engines every so often, for days."),
    _listed("init", "setup.init", "Write a configuration file to begin with."),
    _listed("config validate", "setup.config_validate", "Say what is wrong in a configuration file."),
    _listed("cache clear", "batch.cache", "Remove all kept answers."),
    _listed("cache stats", "batch.cache", "Show what is kept."),
    _listed("history save", "runs.history", "Keep a report's results."),
    _listed("history list", "runs.history", "The runs that are kept."),
    _listed("history trend", "runs.history", "Is the newest run worse than those before it?"),
    _listed("history purge", "runs.history", "Remove old runs."),
    _listed("dataset-stats", "batch.dataset_stats", "How many prompts a dataset has, and how long they are."),
    _listed("profiles", "setup.profiles", "List the named sampling settings."),
    _listed("completion", "setup.completion", "A completion script for bash, zsh or fish."),
)  # fmt: skip
