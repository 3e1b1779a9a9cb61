"""Flags over environment over file, and every mistake of them at once."""

import re
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from ppd_shell.settings import ConfigError, Note, settings_of
from ppd_shell.sources import Sources, read_toml


@dataclass
class Kitchen:
    ovens: Annotated[int, Note(low=1)] = 2
    cooks: tuple[str, ...] = ()


@dataclass
class House:
    kitchen: Kitchen = field(default_factory=Kitchen)


def resolve(flags=None, env=None, file=None):
    sources = Sources(
        flags=flags or {}, env=env or {}, file=file or {}, file_name="house.toml", foreign=re.compile("PPD_GARDEN")
    )
    return sources.resolve(tuple(settings_of(House)))


@pytest.mark.parametrize(
    ("given", "ovens", "origin"),
    [
        (({}, {}, {}), 2, None),
        (({}, {}, {"kitchen": {"ovens": 3}}), 3, "house.toml: [kitchen] ovens"),
        (({}, {"PPD_OVENS": "4"}, {"kitchen": {"ovens": 3}}), 4, "PPD_OVENS"),
        (({"ovens": "5"}, {"PPD_OVENS": "4"}, {"kitchen": {"ovens": 3}}), 5, "--ovens"),
        (({"ovens": None}, {"PPD_OVENS": ""}, {}), 2, None),
    ],
)
def test_the_nearest_source_wins_and_is_named(given, ovens, origin):
    resolution = resolve(*given)
    assert resolution.built(House).kitchen.ovens == ovens
    assert resolution.origins.get("ovens") == origin


def test_a_list_is_separated_by_commas_in_a_variable():
    assert resolve(env={"PPD_COOKS": "ann, bob"}).built(House).kitchen.cooks == ("ann", "bob")


def test_mistakes_of_all_sources_are_found_even_where_another_source_wins():
    resolution = resolve(
        {"ovens": "5"},
        {"PPD_OVENS": "none", "PPD_OVEN": "1", "PPD_GARDEN": "x", "OTHER": "x"},
        {"kitchen": {"ovens": 0, "oven": 1}, "kitchn": {}, "ovens": 1},
    )
    assert resolution.mistakes == (
        "PPD_OVEN: no such setting; did you mean PPD_OVENS?",
        "house.toml: [kitchen] oven is no setting; did you mean [kitchen] ovens?",
        "house.toml: [kitchn] is no section; did you mean [kitchen]?",
        "house.toml: [ovens] is no section; did you mean [kitchen] ovens?",
        "house.toml: [kitchen] ovens: 0 is not a whole number, at least 1",
        "PPD_OVENS: 'none' is not a whole number, at least 1",
    )
    with pytest.raises(ConfigError) as caught:
        resolution.built(House)
    assert caught.value.mistakes == list(resolution.mistakes)


def test_a_key_where_a_table_belongs_is_told_so():
    assert resolve(file={"kitchen": 3}).mistakes == (
        "house.toml: kitchen is not a table; write its keys under [kitchen]",
    )


@pytest.mark.parametrize("content", [b"[kitchen", b"a = '\xff'"])
def test_what_is_no_toml_is_a_mistake_that_names_the_file(tmp_path, content):
    path = tmp_path / "house.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: not valid TOML: "):
        read_toml(path)


def test_a_file_that_is_not_there_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_toml(tmp_path / "house.toml")
