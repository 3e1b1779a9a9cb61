"""What the line and the file come to together: a flag wins over the profile, and the profile over the file."""

import argparse
from pathlib import Path

import pytest

from ppd_acc.cli.flags import add_access_flags, add_sampling_flags
from ppd_acc.cli.given import Given, url_of
from ppd_acc.cli.settings import Settings, load_settings
from ppd_acc.outcome import Mistake

FILE = """
[defaults]
temperature = 0.3
max_tokens = 8
profile = "mine"
headers = { x-team = "a" }
baseline = "http://engine:8000/v1"
[profiles.mine]
temperature = 0.5
[batch]
csv = "of-the-file.csv"
"""


def given(*arguments, settings=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", action="append")
    add_sampling_flags(parser)
    add_access_flags(parser)
    return Given(parser.parse_args(arguments), settings or Settings(), Path())


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "xpyd-acc.toml").write_text(FILE)
    return load_settings(None, tmp_path)


def test_a_flag_wins_over_the_profile_and_the_profile_over_the_file(settings):
    assert given(settings=settings).sampling().temperature == 0.5
    assert given("--temperature", "0", settings=settings).sampling().temperature == 0
    assert given("--profile", "greedy", settings=settings).sampling().temperature == 0
    assert given(settings=settings).sampling().max_tokens == 8
    assert given("--header", "x-b: c", settings=settings).access().headers == {"x-team": "a", "x-b": "c"}


def test_greedy_and_seeded_unless_told_otherwise():
    sampling = given().sampling()
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.0, 1.0, 42)
    assert sampling.is_greedy


def test_an_option_is_the_flags_else_the_files_else_the_default(settings):
    assert given("--seed", "0", settings=settings).option("seed", 1) == 0
    assert given(settings=settings).option("csv", table="batch") == "of-the-file.csv"
    assert given(settings=settings).option("csv") is None
    assert given(settings=settings).option("seed", 1) == 1


def test_a_repeated_flag_is_a_tuple_and_one_that_no_command_has_is_not_given():
    assert given("--dataset", "a", "--dataset", "b").flag("dataset") == ("a", "b")
    assert given().flag("dataset") is None
    assert given().flag("no_such_flag") is None


def test_a_file_is_of_the_working_directory(tmp_path):
    told = Given(argparse.Namespace(log="a.jsonl", csv=None), Settings(), tmp_path)
    assert (told.path("log"), told.path("csv")) == (tmp_path / "a.jsonl", None)


def test_a_url_that_is_given_is_checked_and_another_is_none():
    told = Given(argparse.Namespace(url="http://engine:8000/v1/", decode_node="engine:1"), Settings(), Path())
    assert (told.url("url"), told.url("target")) == ("http://engine:8000", None)
    with pytest.raises(Mistake, match="--decode-node is 'engine:1'"):
        told.url("decode_node")


def test_a_needed_url_may_stand_in_the_file(settings):
    assert given(settings=settings).needed("baseline") == "http://engine:8000"
    with pytest.raises(Mistake, match=r"--target is missing; give a URL such as .*, or \[defaults\] target"):
        given(settings=settings).needed("target")


@pytest.mark.parametrize(
    "url",
    [
        "http://", "http:///v1", "http://..", "http://a..b", "http://[::1", "http://[engine]:1", "http://a:99999",
        "http://a:abc", "http://a:-1", "http://a:0", "http://a b", "http://a|b", "http://a\n", "http://\udce9",
        "http://" + "a" * 70, "engine:8000", "ftp://a",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_a_mistake(url):
    with pytest.raises(Mistake, match=r"--baseline is .*it must be a URL such as"):
        url_of("--baseline", url)


@pytest.mark.parametrize(
    "url",
    [
        "http://a", "http://engine_1.ns.svc.cluster.local.:8000", "https://[::1]:8000", "http://[fe80::1%eth0]:1",
        "http://user:secret@10.0.0.1:1/prefix", "http://b\u00fccher.example:80",
    ],
)  # fmt: skip
def test_a_url_stays_as_it_is_but_for_what_ends_it(url):
    assert url_of("--baseline", url) == url_of("--baseline", url + "/v1/") == url
