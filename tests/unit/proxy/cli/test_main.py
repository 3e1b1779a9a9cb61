"""What the command line prints and returns."""

import errno
import json
import socket
import tomllib
from types import SimpleNamespace

import pytest

from ppd_proxy.cli.main import main
from ppd_proxy.config import config
from ppd_proxy.config.sections import Engines, Routing
from ppd_shell.settings import ConfigError


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch):
    for setting in config.settings():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("PPD_CONFIG", raising=False)


@pytest.fixture
def served(monkeypatch):
    """The configurations the runtime was asked to serve; `outcome` is what it returns or raises."""
    seen = SimpleNamespace(configs=[], outcome=0)

    def serve(given):
        seen.configs.append(given)
        if isinstance(seen.outcome, Exception):
            raise seen.outcome
        return seen.outcome

    monkeypatch.setattr("ppd_proxy.runtime.process.serve", serve)
    return seen


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ppd-proxy ")


@pytest.mark.parametrize("argv", [[], ["server"], ["serve", "--port"]])
def test_usage_mistake_ends_with_2(argv, capsys):
    assert main(argv) == 2
    assert "usage:" in capsys.readouterr().err


def test_help_names_every_flag_and_its_default(capsys):
    assert main(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(setting.flag in text for setting in config.settings())
    assert "default 10001" in " ".join(text.split())


def test_serve_hands_the_configuration_to_the_runtime(served, monkeypatch, tmp_path):
    file = tmp_path / "ppd.toml"
    file.write_text('[routing]\nmode = "pd"\n[engines]\ndecode = ["http://d:1"]\n')
    monkeypatch.setenv("PPD_RETRIES", "3")
    assert main(["serve", "--config", str(file), "--prefill", "http://a:1", "--prefill", "http://b:1"]) == 0
    [given] = served.configs
    assert given.engines == Engines(prefill=("http://a:1", "http://b:1"), decode=("http://d:1",))
    assert (given.routing.mode, given.limits.retries) == ("pd", 3)


def test_serve_returns_what_the_runtime_returns(served):
    served.outcome = 1
    assert main(["serve"]) == 1


def test_serve_tells_every_mistake_and_starts_nothing(served, capsys, monkeypatch):
    monkeypatch.setenv("PPD_MODE", "fast")
    assert main(["serve", "--port", "x", "--prefil", "http://a:1", "stray", "--api-kye=s3cret", "--no-such"]) == 2
    assert served.configs == []
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "--prefil: no such flag; did you mean --prefill?",
        "'stray': unexpected argument; every setting has a flag",
        "--api-kye: no such flag; did you mean --api-key?",
        "--no-such: no such flag; see ppd-proxy serve --help",
        "--port: 'x' is not a whole number from 0 to 65535",
        "PPD_MODE: 'fast' is not one of pd, ppd",
    ]


def test_port_taken_is_one_clear_sentence(served, capsys):
    served.outcome = OSError(errno.EADDRINUSE, "address already in use")
    assert main(["serve", "--port", "10009"]) == 1
    assert capsys.readouterr().err == (
        "could not start on 0.0.0.0:10009: address already in use; choose another --host or --port, or free this one\n"
    )


def test_unknown_host_is_one_clear_sentence(served, capsys):
    served.outcome = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert main(["serve", "--host", "nowhere.invalid"]) == 1
    assert "could not start on nowhere.invalid:10001: Name or service not known" in capsys.readouterr().err


def test_discovery_address_taken_is_one_clear_sentence(served, capsys):
    served.outcome = ConfigError(["discovery cannot listen on 0.0.0.0:30001: Address already in use"])
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == (
        "could not start: discovery cannot listen on 0.0.0.0:30001: Address already in use\n"
    )


def test_other_failures_of_the_runtime_are_not_hidden(served):
    served.outcome = OSError(errno.ENOSPC, "no space left on device")
    with pytest.raises(OSError, match="no space"):
        main(["serve"])


def test_check_prints_a_configuration_that_can_be_loaded_again(capsys, tmp_path):
    argv = [
        "--mode",
        "pd",
        "--decode",
        "http://a:1",
        "--trust-direct",
        "--strip-field",
        'say "x"',
        "--idle-timeout-s",
        "9",
    ]
    assert main(["check", *argv]) == 0
    printed = capsys.readouterr().out
    assert 'mode = "pd"  # from --mode' in printed
    assert "# admin_key: not set" in printed
    assert "port = 10001\n" in printed
    file = tmp_path / "ppd.toml"
    file.write_text(printed)
    assert main(["check", "--config", str(file)]) == 0
    first = config.resolve({}, {}, tomllib.loads(printed)).built(config.Config)
    again = config.resolve({}, {}, tomllib.loads(capsys.readouterr().out)).built(config.Config)
    assert first == again
    assert again.routing == Routing(mode="pd", trust_direct=True, strip_field=('say "x"',))


def test_check_takes_the_file_named_in_the_environment(capsys, monkeypatch, tmp_path):
    file = tmp_path / "ppd.toml"
    file.write_text("[server]\nport = 5\n")
    monkeypatch.setenv("PPD_CONFIG", str(file))
    assert main(["check"]) == 0
    assert f"port = 5  # from {file}: [server] port" in capsys.readouterr().out


def test_check_says_what_kubernetes_must_grant(capsys):
    assert main(["check"]) == 0
    assert "Kubernetes kills 30 s after TERM: set terminationGracePeriodSeconds to 130" in capsys.readouterr().out
    assert main(["check", "--drain-s", "1.5", "--shutdown-grace-s", "200"]) == 0
    assert "set terminationGracePeriodSeconds to 207" in capsys.readouterr().out
    assert main(["check", "--drain-s", "2", "--shutdown-grace-s", "20"]) == 0
    assert "Kubernetes" not in capsys.readouterr().out


def test_check_masks_secrets(capsys, monkeypatch):
    monkeypatch.setenv("PPD_ADMIN_KEY", "s3cret")
    assert main(["check", "--api-key", "s3cret1", "--api-key", "s3cret2"]) == 0
    printed = capsys.readouterr()
    assert 'api_key = ["****", "****"]  # from --api-key' in printed.out
    assert 'admin_key = "****"  # from PPD_ADMIN_KEY' in printed.out
    assert "s3cret" not in printed.out + printed.err


@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_admin_key_that_clients_have_too_is_refused_without_being_shown(command, served, capsys, monkeypatch):
    monkeypatch.setenv("PPD_ADMIN_KEY", "s3cret")
    assert main([command, "--api-key", "other", "--api-key", "s3cret"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("PPD_ADMIN_KEY: the same key as api_key (--api-key): every client could administer")
    assert "s3cret" not in printed.out + printed.err
    assert served.configs == []


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        ('[auth]\nadmin_key = "a"\n', 0o644, "read"),
        ('[auth]\napi_key = ["a"]\n', 0o604, "read"),
        ('[shadow]\nbaseline = ["http://b:1"]\nbaseline_api_key = "a"\n', 0o666, "read"),
        ('[auth]\nregister_key = "a"\n', 0o602, "change"),
        ('[auth]\nadmin_key = "a"\n', 0o600, None),
        ('[auth]\nadmin_key = "a"\n', 0o640, None),
        ('[server]\nport = 5\n', 0o666, None),
    ],
)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_keys_in_a_file_that_others_can_read_are_a_warning(command, content, mode, word, served, capsys, tmp_path):
    file = tmp_path / "ppd.toml"
    file.write_text(content)
    file.chmod(mode)
    assert main([command, "--config", str(file)]) == 0
    said = capsys.readouterr().err
    if word is None:
        assert said == ""
    else:
        key = content.splitlines()[-1].split(" =")[0]
        assert said.startswith(f"warning: {file}: every user of this host can {word} it, and it has [")
        assert f"] {key}; chmod 600 {file}" in said


def test_check_prints_mistakes_and_warnings_beside_the_configuration(capsys):
    assert main(["check", "--port", "70000", "--discovery-port", "0"]) == 2
    printed = capsys.readouterr()
    assert "port = 10001" in printed.out
    assert printed.err.splitlines()[0].startswith("--port: 70000")
    assert printed.err.splitlines()[1].startswith("warning: ")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param(b"[server\n", "not TOML", id="syntax"),
        pytest.param(b"\xff\xfe", "not TOML", id="encoding"),
        pytest.param(None, "cannot be read", id="missing"),
    ],
)
def test_unusable_file_is_a_mistake(content, word, capsys, tmp_path):
    file = tmp_path / "ppd.toml"
    if content is not None:
        file.write_bytes(content)
    assert main(["check", "--config", str(file)]) == 2
    assert f"{file}: {word}" in capsys.readouterr().err


def test_kv_size_is_computed_from_the_model_file(served, capsys, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"n_layer": 6, "n_head": 12, "n_embd": 768, "dtype": "float32"}))
    assert main(["serve", "--model-config", str(file)]) == 0
    assert served.configs[0].metrics.kv_bytes_per_token == 36864
    assert main(["check", "--model-config", str(file), "--kv-cache-dtype", "fp8"]) == 0
    assert "# kv_bytes_per_token = 9216  # computed from model_config" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param("{", "is not JSON", id="syntax"),
        pytest.param("[]", "not a JSON object", id="list"),
        pytest.param("{}", "num_hidden_layers", id="nothing in it"),
        pytest.param(None, "cannot be read", id="missing"),
    ],
)
def test_unusable_model_file_is_a_mistake(content, word, capsys, tmp_path):
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content)
    assert main(["check", "--model-config", str(file)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("--model-config: ")
    assert word in line


def test_simulate_has_its_own_flags(capsys):
    assert main(["simulate", "--help"]) == 0
    assert "--role" in capsys.readouterr().out
    assert main(["simulate", "--role", "decode", "--port", "0", "--rol", "x"]) == 2
    assert "--rol: no such flag; did you mean --role?" in capsys.readouterr().err
