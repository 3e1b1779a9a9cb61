"""What a declared setting takes, of texts and of typed values."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from ppd_shell.settings import MASK, SECRET, ConfigError, Form, Note, from_text, is_of, parse, settings_of

EVEN = Form("a text of an even length", lambda text: text.lower() if len(text) % 2 == 0 else None, "PAIR")


@dataclass
class Kitchen:
    door: Annotated[str | None, Note(help="which way in", form=EVEN)] = None
    ovens: Annotated[int, Note(help="how many", unit="ovens", low=1, high=4)] = 2
    heat: Annotated[float, Note(help="how hot", low=0)] = 20.0
    is_open: bool = True
    fuel: Literal["gas", "wood"] = "gas"
    cooks: tuple[str, ...] = ()
    pin: Annotated[str | None, Note(form=SECRET)] = None


@dataclass
class House:
    name: str
    kitchen: Kitchen = field(default_factory=Kitchen)


KNOWN = {setting.name: setting for setting in settings_of(House)}


def refused(name, raw):
    with pytest.raises(ConfigError) as caught:
        parse(KNOWN[name], raw)
    return caught.value.mistakes


def test_sections_are_the_fields_that_are_dataclasses():
    assert [(setting.section, setting.name) for setting in settings_of(House)] == [
        ("", "name"), *(("kitchen", name) for name in ("door", "ovens", "heat", "is_open", "fuel", "cooks", "pin")),
    ]  # fmt: skip


def test_a_setting_is_named_as_flag_variable_and_key():
    setting = KNOWN["is_open"]
    assert (setting.flag, setting.variable, setting.key) == ("--is-open", "PPD_IS_OPEN", "[kitchen] is_open")
    assert [name for name, setting in KNOWN.items() if setting.is_secret] == ["pin"]


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("door", "BACK", "back"), ("ovens", 3, 3), ("ovens", 3.0, 3), ("heat", 3, 3.0), ("is_open", False, False),
        ("is_open", True, True), ("fuel", "wood", "wood"), ("cooks", ["a", "b"], ("a", "b")), ("name", " x", " x"),
    ],
)  # fmt: skip
def test_what_fits_is_taken_in_its_own_type(name, raw, value):
    assert parse(KNOWN[name], raw) == value
    assert type(parse(KNOWN[name], raw)) is type(value)


@pytest.mark.parametrize(
    ("name", "raw", "right"),
    [
        ("door", "odd", "is not a text of an even length"),
        ("ovens", 5, "is not a whole number of ovens from 1 to 4"),
        ("ovens", 1.5, "is not a whole number of ovens from 1 to 4"),
        ("ovens", True, "is not a whole number of ovens from 1 to 4"),
        ("ovens", "2", "is not a whole number of ovens from 1 to 4"),
        ("heat", -1, "is not a number, at least 0"),
        ("heat", float("nan"), "is not a number, at least 0"),
        ("is_open", 1, "is not true or false"),
        ("fuel", "oil", "is not one of gas, wood"),
        ("cooks", "a", "is not a list; give a list, each item a text that is not empty"),
        ("name", " ", "is not a text that is not empty"),
    ],
)
def test_a_mistake_names_the_value_and_what_would_be_right(name, raw, right):
    assert refused(name, raw) == [f"{raw!r} {right}"]


def test_every_item_of_a_list_is_looked_at():
    assert refused("cooks", ["a", "", 3, "a"]) == [
        "'' is not a text that is not empty", "3 is not a text that is not empty",
        "'a' is given twice; give each value once",
    ]  # fmt: skip


@pytest.mark.parametrize("raw", ["two words", "a,b", "ключ", "", MASK, 7])
def test_a_secret_that_is_refused_is_not_shown(raw):
    assert refused("pin", raw) == [f"the value (hidden) is not {KNOWN['pin'].expected}"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("is_open", " Yes ", True), ("is_open", "off", False), ("is_open", "maybe", "maybe"), ("ovens", "3", 3),
        ("ovens", "three", "three"), ("heat", "1e3", 1000.0), ("door", "3", "3"), ("is_open", True, True),
    ],
)  # fmt: skip
def test_a_text_stands_for_a_number_or_a_switch(name, text, value):
    assert from_text(KNOWN[name], text) == value


def test_a_switch_is_no_number_and_a_whole_number_is_a_float():
    assert [is_of(kind, True) for kind in (bool, int, float, str)] == [True, False, False, False]
    assert [is_of(kind, 1) for kind in (bool, int, float, str)] == [False, True, True, False]
    assert is_of(dict, {})
    assert not is_of(int, 1.0)
