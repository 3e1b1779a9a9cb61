"""Arguments that no request could be made of are mistakes in usage, not defects."""

import pytest

from ppd_acc.cli import main as program
from ppd_acc.cli.settings import RANGES
from ppd_acc.outcome import Exit

ASKING = ("compare-output", "--baseline", "http://127.0.0.1:1", "--target", "http://127.0.0.1:1", "--prompt", "x")


def ends_with_usage(capsys, *line):
    code = program.main(line)
    out, err = capsys.readouterr()
    assert (code, out) == (Exit.USAGE, "")
    assert "defect" not in err
    return err


def test_a_malformed_url_ends_with_two(capsys):
    assert "http://a:99999" in ends_with_usage(capsys, *ASKING, "--target", "http://a:99999")


@pytest.mark.parametrize(
    "command", ["compare-output", "compare-logprobs", "compare-streaming", "sensitivity", "diagnose", "bisect"]
)
def test_a_prompt_that_is_not_utf8_is_a_mistake(capsys, command):
    line = (command, *ASKING[1:5], "--prompt", "caf\udce9")
    assert "character 3 is not UTF-8" in ends_with_usage(capsys, *line)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--header", "x-tenant: a\nb"), ("--header", "x-tenant: a\x00"), ("--header", "x tenant: a"),
        ("--header", "x-tenant: \udce9"), ("--api-key", "a\r\nb"), ("--api-key", "\udce9"), ("--model", "\udce9"),
    ],
)  # fmt: skip
def test_what_no_header_can_hold_is_a_mistake(capsys, arguments):
    ends_with_usage(capsys, *ASKING, *arguments)


@pytest.mark.parametrize(
    "setting", ['api_key = "secret\\n1"', 'headers = { x-tenant = "secret\\n1" }', 'headers = { "a b" = "1" }']
)
def test_what_no_header_can_hold_is_a_mistake_of_the_file_too(capsys, tmp_path, setting):
    (tmp_path / "c.toml").write_text(f"[defaults]\n{setting}\n")
    assert "secret" not in ends_with_usage(capsys, *ASKING, "--config", str(tmp_path / "c.toml"))


@pytest.mark.parametrize(("flag", "key"), [
    ("--seed", "seed"), ("--noise-floor", "noise_floor"), ("--max-tokens", "max_tokens"), ("--top-k", "top_k"),
    ("--retries", "retries"), ("--concurrency", "concurrency"), ("--timeout", "timeout"),
])  # fmt: skip
@pytest.mark.parametrize("end", [0, 1])
def test_a_flag_has_the_range_of_its_key_in_the_file(capsys, tmp_path, flag, key, end):
    past = RANGES[key][end] + (1 if end else -1)
    assert "must be from" in ends_with_usage(capsys, *ASKING, f"{flag}={past}")
    if abs(past) < 2**63:  # TOML has no larger ones
        (tmp_path / "c.toml").write_text(f"[defaults]\n{key} = {past}\n")
        assert "must be from" in ends_with_usage(capsys, *ASKING, "--config", str(tmp_path / "c.toml"))
