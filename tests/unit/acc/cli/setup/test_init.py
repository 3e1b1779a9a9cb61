"""init, config validate and profiles."""

import shutil
import subprocess

import pytest
from tests.support.acc.commands import run_command

from ppd_acc.cli import main as program
from ppd_acc.cli.given import Given
from ppd_acc.cli.parser import build_parser
from ppd_acc.cli.settings import load_settings
from ppd_acc.outcome import Exit, Mistake
from ppd_shell.settings import ConfigError

PUBLISHED = """
[defaults]
# baseline = "http://localhost:8000/v1"
max_tokens = 64
[batch]
concurrency = 5
[profiles.mine]
temperature = 0.3
"""


async def test_the_starter_is_valid_and_settles_what_commands_need(tmp_path):
    await run_command("init", at=tmp_path)
    result = await run_command("config validate", at=tmp_path)
    assert (result.exit, result.notes) == (Exit.PASS, ())
    settings = load_settings(None, tmp_path)
    assert settings.get("defaults", "baseline") == "http://aggregated:8000"
    args = build_parser().parse_args(["compare-output", "--profile", "long"])
    assert Given(args, settings, tmp_path).sampling().max_tokens == 512


async def test_the_starter_has_the_given_urls(tmp_path):
    await run_command("init", "--baseline", "http://b:1/v1", "--target", "http://t:2", "-o", "x.toml", at=tmp_path)
    settings = load_settings("x.toml", tmp_path)
    assert (settings.get("defaults", "baseline"), settings.get("defaults", "target")) == ("http://b:1", "http://t:2")


async def test_an_url_with_a_quote_makes_no_other_setting(tmp_path):
    with pytest.raises(Mistake, match="--baseline"):
        await run_command("init", "--baseline", 'http://b"\nseed = 1 #', at=tmp_path)
    url = 'http://b/"#\\'
    await run_command("init", "--baseline", url, at=tmp_path)
    settings = load_settings(None, tmp_path)
    assert (settings.get("defaults", "seed"), settings.get("defaults", "baseline")) == (42, url)


async def test_a_file_is_overwritten_only_by_force(tmp_path):
    (tmp_path / "ppd-acc.toml").write_text("mine")
    with pytest.raises(Mistake, match="--force"):
        await run_command("init", at=tmp_path)
    assert (tmp_path / "ppd-acc.toml").read_text() == "mine"
    await run_command("init", "--force", at=tmp_path)
    assert "[defaults]" in (tmp_path / "ppd-acc.toml").read_text()


async def test_a_directory_that_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="directory that exists"):
        await run_command("init", "-o", "no/such/file.toml", at=tmp_path)


async def test_the_published_tools_file_is_read(tmp_path):
    (tmp_path / "xpyd-acc.toml").write_text(PUBLISHED)
    result = await run_command("config validate", at=tmp_path)
    assert (result.exit, result.data["tables"]) == (Exit.PASS, ["defaults", "batch", "profiles"])


async def test_unknown_keys_are_told_and_valid(tmp_path):
    (tmp_path / "a.toml").write_text("[defaults]\ntempreature = 1\n[nonsense]\nx = 1\n")
    result = await run_command("config validate", "a.toml", at=tmp_path)
    assert result.exit == Exit.PASS
    assert "did you mean temperature?" in result.notes[0]
    assert len(result.data["unknown"]) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[defaults]\nmax_tokens = true", "defaults.max_tokens is True"),
        ("[defaults]\ntemperature = nan", "defaults.temperature is nan"),
        ("[batch]\nfail_threshold = 2", "batch.fail_threshold is 2"),
        ("[profiles]\nx = 1", "profiles.x is 1"),
        ("defaults = 1", "defaults is 1"),
        ("[defaults", "not valid TOML"),
    ],
)
async def test_every_mistake_ends_with_2(tmp_path, text, told):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises((Mistake, ConfigError), match=told):
        await run_command("config validate", "a.toml", at=tmp_path)


async def test_unknown_keys_are_told_beside_mistakes(tmp_path):
    (tmp_path / "a.toml").write_text("[defaults]\nseed = 'x'\ntempreature = 1\n[bach]\n")
    with pytest.raises(Mistake) as raised:
        await run_command("config validate", "a.toml", at=tmp_path)
    told = str(raised.value).splitlines()
    assert len(told) == 3
    assert "did you mean temperature?" in told[1]
    assert "did you mean batch?" in told[2]


async def test_no_file_to_validate_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="ppd-acc init"):
        await run_command("config validate", at=tmp_path)


def test_a_broken_file_in_the_working_directory_does_not_stop_its_own_validation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppd-acc.toml").write_text("[defaults]\nseed = 'x'")
    assert program.main(["config", "validate"]) == Exit.USAGE
    assert "defaults.seed" in capsys.readouterr().err


async def test_profiles_are_the_built_in_ones_and_the_files(tmp_path):
    (tmp_path / "ppd-acc.toml").write_text("[profiles.greedy]\ntemperature = 0.0\nmax_tokens = 9\n")
    settings = load_settings(None, tmp_path)
    result = await run_command("profiles", settings=settings)
    told = result.data["profiles"]
    assert told["stochastic"] == {"values": {"temperature": 0.7, "seed": 42}, "source": "built in"}
    assert told["greedy"]["values"]["max_tokens"] == 9
    assert "replaces the built-in one" in result.notes[0]


def completed(tmp_path, *words):
    """What a real bash offers for the last of the words."""
    script = tmp_path / "ppd-acc.bash"
    assert program.main(["completion", "bash", "--output", str(script)]) == 0
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f'source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{" ".join(words)}";'
        f" COMP_POINT=${{#COMP_LINE}}; _shtab_ppd_acc {words[0]} '{words[-1]}' '{words[-2]}' 2>/dev/null;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    told = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    return told.stdout.split()


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


@needs_bash
def test_bash_completes_commands_subcommands_choices_and_options(tmp_path, capsys):
    assert "explain" in completed(tmp_path, "ppd-acc", "ex")
    assert completed(tmp_path, "ppd-acc", "history", "tr") == ["trend"]
    assert set(completed(tmp_path, "ppd-acc", "completion", "")) >= {"bash", "zsh", "fish"}
    assert completed(tmp_path, "ppd-acc", "summary", "--format", "one") == ["oneline"]
    assert "--sample" in completed(tmp_path, "ppd-acc", "explain", "--sa")
    assert "--tag" in completed(tmp_path, "xpyd-acc", "history", "save", "--t")


@needs_bash
def test_bash_completes_file_names(tmp_path, capsys):
    (tmp_path / "results.json").write_text("{}")
    assert "results.json" in completed(tmp_path, "ppd-acc", "explain", "--report", "resu")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_valid_where_their_shell_is_installed(tmp_path, capsys, shell):
    script = tmp_path / "script"
    assert program.main(["completion", shell, "-o", str(script)]) == 0
    text = script.read_text()
    assert "xpyd-acc" in text
    assert "purge" in text
    if shutil.which(shell) is not None:
        flag = "--no-execute" if shell == "fish" else "-n"
        subprocess.run([shell, flag, str(script)], check=True)


def test_a_printed_script_is_the_written_one(tmp_path, capsys):
    script = tmp_path / "script"
    program.main(["completion", "zsh", "-o", str(script)])
    capsys.readouterr()
    program.main(["completion", "zsh"])
    assert capsys.readouterr().out == script.read_text()
