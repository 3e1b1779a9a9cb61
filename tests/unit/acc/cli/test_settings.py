"""The configuration file: found and checked."""

import pytest

from ppd_acc.cli.settings import load_settings, unknown_of
from ppd_shell.settings import ConfigError


def test_our_file_name_comes_first(tmp_path):
    (tmp_path / "xpyd-acc.toml").write_text("[defaults]\nseed = 1")
    (tmp_path / "ppd-acc.toml").write_text("[defaults]\nseed = 2")
    assert load_settings(None, tmp_path).get("defaults", "seed") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[defaults]\nmax_tokens = true", r"defaults.max_tokens is True \(bool\); it must be int"),
        ("[defaults]\nmax_tokens = 0", "defaults.max_tokens is 0; it must be from 1"),
        ("[batch]\nfail_threshold = 1.5", "batch.fail_threshold is 1.5; it must be from 0 to 1"),
        ("[profiles.a]\ntemperature = 'hot'", "profiles.a.temperature is 'hot'"),
        ("[defaults]\nbaseline = 'foo'", "defaults.baseline is 'foo': it begins with neither http:// nor https://"),
        ("[defaults]\ntarget = 'http://'", "defaults.target is 'http://': '' is no host name; it must be a URL such"),
        ("[defaults]\nendpoint = 'chats'", "defaults.endpoint is 'chats'; it must be one of chat, completions"),
        ("[defaults]\nprofile = 'warm'", "defaults.profile is 'warm'; it must be one of greedy, stochastic"),
        ('[defaults]\napi_key = "a\\nb"', "defaults.api_key has a control character"),
        ('[defaults]\nheaders = { "a b" = "1" }', "defaults.headers: header 'a b': a name has letters"),
        ("[matching]\nnormalizers = ['lower']", "matching.normalizers has 'lower'; there are strip_thinking_tags"),
        ("defaults = 3", "defaults is 3; it must be a table"),
        ("[defaults", "not valid TOML"),
    ],
)
def test_a_mistake_names_field_value_and_what_is_right(tmp_path, text, message):
    (tmp_path / "ppd-acc.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(None, tmp_path)


def test_every_mistake_of_a_file_is_told(tmp_path):
    (tmp_path / "ppd-acc.toml").write_text("[defaults]\nseed = 'x'\ntop_p = 0.0")
    with pytest.raises(ConfigError) as error:
        load_settings(None, tmp_path)
    assert len(str(error.value).splitlines()) == 2


def test_unknown_keys_are_told_with_what_was_meant():
    told = list(unknown_of({"defaults": {"max_token": 3}, "bach": {}}))
    assert told == [
        "defaults.max_token means nothing to ppd-acc; did you mean max_tokens?",
        "[bach] means nothing to ppd-acc; did you mean batch?",
    ]
