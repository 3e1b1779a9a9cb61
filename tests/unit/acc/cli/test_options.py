"""A command's options are frozen, say their flags themselves, and are read in the order of their fields."""

import argparse
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest

from ppd_acc.cli.given import Given
from ppd_acc.cli.options import add_options, derived, flag, flags, nested, read_options, several, switch, value
from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    max_abs: float | None = flag(type=float)


def _add_sides(parser):
    parser.add_argument("--baseline")
    parser.add_argument("--target")


def _sides(given):
    if given.flag("target") is None:
        raise Mistake("--target is missing")
    return (given.flag("baseline"), given.flag("target"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    words: tuple[str, ...] = flag("words", nargs="*")
    sides: tuple[str, str] = flags(_add_sides, _sides)
    seed: int = flag("-s", "--seed", type=int, read=lambda given: given.option("seed", 7))
    limits: Limits = nested(Limits)
    runs: int = value("N", "of every prompt", int, 5)
    force: bool = switch("even so")
    labels: tuple[str, ...] = several("WORD", "repeatable")
    profile: tuple[str | None, dict] = derived(Given.profile)


def parser():
    made = argparse.ArgumentParser()
    add_options(Options, made)
    return made


def options(*arguments):
    return read_options(Options, Given(parser().parse_args(arguments), Settings(), Path()))


def test_fields_become_flags_and_flags_become_fields():
    read = options("a", "b", "--target", "t", "--max-abs", "0.5")
    assert read == Options(
        words=("a", "b"), sides=(None, "t"), seed=7, limits=Limits(max_abs=0.5), runs=5, force=False, labels=(),
        profile=(None, {}),
    )  # fmt: skip
    assert "of every prompt (default 5)" in parser().format_help()


def test_what_may_be_given_several_times_is_a_tuple():
    assert options("--target", "t", "--labels", "a", "--labels", "b").labels == ("a", "b")


def test_options_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        options("--target", "t").seed = 8


def test_a_value_that_cannot_be_made_is_a_mistake():
    with pytest.raises(Mistake, match="--target is missing"):
        options()
