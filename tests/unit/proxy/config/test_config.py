"""Where values come from, which win, and that every mistake is found at once."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_proxy.config import config
from ppd_shell.settings import MASK, ConfigError
from ppd_wire.model_config import kv_bytes_per_token


def load(*given, **named):
    return config.resolve(*given, **named).built(config.Config)


def mistakes(flags=None, env=None, file=None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, env or {}, file, file_name="ppd.toml")
    return caught.value.mistakes


def test_defaults_are_the_documented_ones():
    loaded = load({}, {})
    assert loaded == config.Config()
    assert (loaded.server.port, loaded.routing.mode, loaded.discovery.discovery_port) == (10001, "ppd", 30001)


def test_flags_win_over_environment_over_file():
    file = {"server": {"port": 1, "host": "file"}, "routing": {"mode": "pd", "handoff": "none"}}
    env = {"PPD_PORT": "2", "PPD_MODE": "ppd", "PPD_KEEP_ALIVE_S": "4"}
    loaded = load({"port": "3"}, env, file)
    assert (loaded.server.port, loaded.routing.mode, loaded.routing.handoff) == (3, "ppd", "none")
    assert (loaded.server.host, loaded.server.keep_alive_s) == ("file", 4.0)


def test_origins_name_where_a_value_came_from():
    env = {"PPD_MODE": "pd"}
    resolved = config.resolve({"port": "3"}, env, {"limits": {"retries": 2}}, file_name="ppd.toml")
    assert resolved.origins == {"port": "--port", "mode": "PPD_MODE", "retries": "ppd.toml: [limits] retries"}


def test_lists_are_repeated_flags_and_comma_separated_variables():
    loaded = load({"prefill": ["http://a:1", "http://b:2"]}, {"PPD_DECODE": "http://c:3, http://d:4"})
    assert loaded.engines.prefill == ("http://a:1", "http://b:2")
    assert loaded.engines.decode == ("http://c:3", "http://d:4")


def test_engine_urls_are_brought_to_one_form():
    loaded = load({"decode": ["http://Host/", "https://[::1]:8443"]}, {})
    assert loaded.engines.decode == ("http://host:80", "https://[::1]:8443")


def test_empty_variable_counts_as_not_set():
    assert load({}, {"PPD_API_KEY": "", "PPD_PORT": ""}) == config.Config()


def test_all_mistakes_of_all_sources_are_found_at_once():
    found = mistakes(
        {"port": "99999", "prefill": ["nonsense", "http://a:1/v1"]},
        {"PPD_MODE": "fast", "PPD_RETRIES": "-1", "PPD_PREFIL": "http://a:1"},
        {"server": {"port": "10001", "keep_alive_s": True}, "serve": {}, "routing": {"mod": "pd"}},
    )
    assert len(found) == 10
    for origin, value, right in (
        ("--port", "99999", "from 0 to 65535"),
        ("--prefill", "'nonsense'", "http://HOST:PORT"),
        ("--prefill", "'http://a:1/v1'", "without a path"),
        ("PPD_MODE", "'fast'", "one of pd, ppd"),
        ("PPD_RETRIES", "-1", "at least 0"),
        ("PPD_PREFIL", "no such setting", "did you mean PPD_PREFILL?"),
        ("ppd.toml: [server] port", "'10001'", "a whole number"),
        ("ppd.toml: [server] keep_alive_s", "True", "a number of seconds"),
        ("ppd.toml: [serve]", "no section", "did you mean [server]?"),
        ("ppd.toml: [routing] mod", "no setting", "did you mean [routing] mode?"),
    ):
        assert any(line.startswith(f"{origin}") and value in line and right in line for line in found), origin


def test_setting_outside_its_table_is_told_its_table():
    found = mistakes(file={"port": 1, "routing": {"host": "x"}, "auth": "x"})
    assert found == [
        "ppd.toml: [port] is no section; did you mean [server] port?",
        "ppd.toml: [routing] host is no setting; did you mean [server] host?",
        "ppd.toml: auth is not a table; write its keys under [auth]",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("idle_timeout_s", float("nan"), id="nan"),
        pytest.param("idle_timeout_s", float("inf"), id="inf"),
        pytest.param("idle_timeout_s", 10**400, id="too large for a float"),
        pytest.param("idle_timeout_s", 0, id="no time at all"),
        pytest.param("retries", 1.5, id="fraction"),
        pytest.param("retries", True, id="switch for a number"),
        pytest.param("retries", [1], id="list for one value"),
    ],
)
def test_number_out_of_bounds_is_refused(name, value):
    [found] = mistakes(file={"limits": {name: value}})
    assert found.startswith(f"ppd.toml: [limits] {name}: ")


@pytest.mark.parametrize("url", ["", "http://", "ftp://a:1", "a:1", "http://a:0", "http://a:99999", "http://a:1?x=1"])
def test_bad_engine_url_is_refused(url):
    [found] = mistakes({"decode": [url]})
    assert found.startswith(f"--decode: {url!r} is not an engine's URL")


def test_one_engine_has_one_role():
    [found] = mistakes({"decode": ["http://A:1"]}, {"PPD_PREFILL": "http://a:1"})
    assert found.startswith("--decode: 'http://a:1': a:1 is also a prefill engine (PPD_PREFILL)")


def test_a_split_engine_is_no_baseline():
    [found] = mistakes({"decode": ["http://a:1"], "baseline": ["http://A:1", "http://b:1"]})
    assert found == "--baseline: 'http://a:1' is also a decode engine (--decode); a baseline is not split"
    assert load({"aggregated": ["http://a:1"], "baseline": ["http://a:1"]}, {}).shadow.baseline == ("http://a:1",)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"journal": "j.db"}, "journal is set and baseline is not"),
        ({"baseline": ["http://b:1"], "guard": "act", "shadow_rate": "0"}, "the guard never acts"),
    ],
)
def test_settings_of_the_accuracy_check_that_do_nothing_are_warned_of(flags, word):
    [found] = config.resolve({"aggregated": ["http://a:1"], **flags}, {}).warnings
    assert word in found


def test_engine_named_twice_is_refused():
    [found] = mistakes({"decode": ["http://a:1", "http://A:1/"]})
    assert "'http://a:1' is given twice" in found


def test_list_must_be_a_list_in_the_file():
    [found] = mistakes(file={"engines": {"prefill": "http://a:1"}})
    assert "is not a list" in found


def test_client_and_discovery_port_must_differ():
    [found] = mistakes({"port": "30001"})
    assert found == "--port: port and discovery_port are both 30001; give each its own"
    assert load({"port": "0", "discovery_port": "0"}, {}).server.port == 0


def test_kv_size_is_given_or_computed_not_both():
    [found] = mistakes({"model_config": "c.json"}, {"PPD_KV_BYTES_PER_TOKEN": "4096"})
    assert found.startswith("--model-config: kv_bytes_per_token is given too (PPD_KV_BYTES_PER_TOKEN)")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("admin_key", "api_key"), ("admin_key", "register_key"), ("admin_key", "engine_api_key"),
        ("admin_key", "baseline_api_key"), ("register_key", "api_key"),
    ],
)  # fmt: skip
def test_a_key_that_would_open_more_than_its_holders_may_is_a_mistake(one, other):
    file = {"auth": {"api_key": ["first"]}, "shadow": {"baseline": ["http://b:1"]}}
    section = "shadow" if other == "baseline_api_key" else "auth"
    file[section][other] = ["first", "second"] if other == "api_key" else "second"
    found = config.resolve({}, {f"PPD_{one.upper()}": "second"}, file, file_name="ppd.toml").mistakes
    assert len(found) == 1
    assert found[0].startswith(f"PPD_{one.upper()}: the same key as {other} (ppd.toml: [{section}] {other}): every ")
    assert "second" not in found[0]
    assert config.resolve({}, {f"PPD_{one.upper()}": "third"}, file).mistakes == ()


def test_engines_that_know_a_clients_key_are_a_warning():
    given = {"PPD_API_KEY": "one,two", "PPD_ENGINE_API_KEY": "two", "PPD_AGGREGATED": "http://a:1"}
    [warning] = config.resolve({}, given).warnings
    assert warning.startswith("engine_api_key is also one of api_key")
    assert config.resolve({}, {**given, "PPD_ENGINE_API_KEY": "three"}).warnings == ()


def test_what_announced_engines_do_not_get_is_a_warning():
    [warning] = config.resolve({"engine_api_key": "k"}, {}).warnings
    assert "trust_announced" in warning
    urls = {"prefill": ["http://p:1"], "decode": ["http://d:1"]}
    [warning] = config.resolve({"handoff": "p2p_nccl", **urls}, {}).warnings
    assert "KV address" in warning
    assert len(config.resolve({"handoff": "p2p_nccl", "discovery_port": "0", **urls}, {}).warnings) == 1
    for fine in ({"engine_api_key": "k", **urls}, {"engine_api_key": "k", "trust_announced": True}):
        assert config.resolve(fine, {}).warnings == ()
    assert config.resolve({"handoff": "p2p_nccl", "trust_announced": True, **urls}, {}).warnings == ()


@pytest.mark.parametrize("network", ["10.0.0.0/8", "fd00::/8", "192.0.2.7", "0.0.0.0/0", " 10.1.0.0/16 "])
def test_networks_are_taken_in_their_usual_form(network):
    assert len(load({"discovery_allow": [network]}, {}).discovery.discovery_allow) == 1


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "", "10.0.0", "10.0.0.0/8;", "::/129"])
def test_what_is_no_network_is_a_mistake(network):
    [mistake] = config.resolve({"discovery_allow": [network]}, {}).mistakes
    assert mistake.startswith(f"--discovery-allow: {network!r} is not a network such as 10.0.0.0/8")


def test_nothing_to_route_to_is_a_warning_because_engines_can_register():
    resolved = config.resolve({"discovery_port": "0", "prefill": ["http://a:1"]}, {})
    assert not resolved.mistakes
    assert "nothing to route to" in resolved.warnings[0]
    assert not config.resolve({"discovery_port": "0", "aggregated": ["http://a:1"]}, {}).warnings
    assert not config.resolve({}, {}).warnings


def test_variables_of_others_are_left_alone():
    others = {
        "PPD_VLLM_VENV": "x",
        "PPD_VLLM_VERSION": "x",
        "PPD_CONFIG": "x",
        "PPD_PROXY_PORT": "tcp://x",
        "PATH": "x",
    }
    assert load({}, others) == config.Config()


@pytest.mark.parametrize("key", ["with space", "a,b", "line\n", "ключ", MASK])
def test_bad_secret_is_refused_without_being_shown(key):
    [found] = mistakes({"admin_key": key})
    assert "(hidden)" in found
    assert key not in found


def test_secrets_are_not_in_the_representation():
    secrets = {"api_key": ["s3cret"], "admin_key": "s3cret1", "register_key": "s3cret2", "engine_api_key": "s3cret3"}
    loaded = load(secrets, {})
    assert loaded.auth.api_key == ("s3cret",)
    assert "s3cret" not in repr(loaded)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("off", False), ("No", False)])
def test_switch_is_read_from_the_environment(text, value):
    assert load({}, {"PPD_TRUST_DIRECT": text}).routing.trust_direct is value


def test_switch_given_as_flag_wins_when_it_is_off():
    assert load({"trust_direct": False}, {"PPD_TRUST_DIRECT": "true"}).routing.trust_direct is False


def test_sections_are_frozen():
    with pytest.raises(FrozenInstanceError):
        config.Config().server.port = 1


def test_every_setting_has_help_and_a_name_of_its_own():
    known = config.settings()
    assert len({setting.name for setting in known}) == len(known)
    assert all(setting.note.help and setting.expected for setting in known)
    assert all(setting.note.unit == "seconds" for setting in known if setting.name.endswith("_s"))
    assert {setting.type for setting in known} == {str, int, float, bool}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*(s.name for s in config.settings()), "server", "auth", "engines", "limits"]) | st.text()


@settings(deadline=None)
@given(file=st.dictionaries(names, st.dictionaries(names, json_values) | json_values))
def test_any_file_gives_a_configuration_or_a_list_of_mistakes(file):
    resolved = config.resolve({}, {}, file)
    if not resolved.mistakes:
        assert isinstance(resolved.built(config.Config), config.Config)


@settings(deadline=None)
@given(env=st.dictionaries(st.sampled_from([s.variable for s in config.settings()]), st.text()))
def test_any_environment_gives_a_configuration_or_a_list_of_mistakes(env):
    resolved = config.resolve({}, env)
    assert resolved.mistakes or isinstance(resolved.built(config.Config), config.Config)


def test_every_cache_type_has_a_size():
    [setting] = [s for s in config.settings() if s.name == "kv_cache_dtype"]
    model = {"n_layer": 6, "n_head": 12, "n_embd": 768, "dtype": "float32"}
    assert all(kv_bytes_per_token(model, choice) for choice in setting.choices)
