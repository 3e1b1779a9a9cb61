"""What an engine refuses: which one it is, what helps, in one short line; and keys, which nobody else is told."""

import pytest
from aiohttp import web
from tests.support.acc.commands import run_command
from tests.support.acc.engines import engine_config, engine_of, pair
from tests.support.acc.reports import dataset

from ppd_acc.outcome import Exit, Trouble
from ppd_sim.engine import running_engine
from ppd_wire.answers.refusals import told_by

ASKED = {
    "compare-output": ("--prompt", "x"),
    "compare-logprobs": ("--prompt", "x"),
    "compare-streaming": ("--prompt", "x"),
    "fingerprint": (),
    "sensitivity": ("--prompt", "x", "--perturbations", "1"),
    "bisect": ("--prompt", "x y z"),
    "reproducibility": ("--prompt", "x"),
}
PAGE = b"""<!DOCTYPE html>
<html><head><title>502 Bad
 Gateway</title></head><body><center><h1>502</h1></center><hr>nginx</body></html>"""


async def refusing(_):
    return web.json_response({"error": "Unauthorized"}, status=401)


@pytest.mark.parametrize("name", ASKED)
async def test_a_refused_key_names_the_side_and_the_remedy(name):
    async with engine_of(refusing) as url:
        quick = ("--noise-floor", "1", "--retries", "0", *ASKED[name])
        with pytest.raises(Trouble) as raised:
            await run_command(name, "--baseline", url, "--target", url, *quick)
    assert str(raised.value).startswith("--baseline: ")
    assert 'answered 401: {"error": "Unauthorized"} (--api-key or PPD_ACC_API_KEY)' in str(raised.value)


async def test_a_refused_key_of_the_target_names_its_own_flag():
    async with running_engine(engine_config()) as one, engine_of(refusing) as closed:
        with pytest.raises(Trouble, match=r"^--target: .* 401: .*\(--target-api-key or PPD_ACC_TARGET_API_KEY, else"):
            await run_command(
                "compare-logprobs", "--baseline", one.url, "--target", closed, "--prompt", "x", "--retries", "0"
            )


async def test_each_side_has_its_own_key_and_neither_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_ACC_TARGET_API_KEY", "key-of-the-target")
    keys = {"api_key": "key-of-the-baseline"}, {"api_key": "key-of-the-target"}
    output, cached = tmp_path / "out.json", tmp_path / "cache"
    async with running_engine(engine_config(**keys[0])) as one, running_engine(engine_config(**keys[1])) as other:
        result = await run_command(
            "batch-compare", "--baseline", one.url, "--target", other.url, "--dataset", dataset(tmp_path, 3),
            "--api-key", "key-of-the-baseline", "--output", str(output), "--cache-dir", str(cached),
            "--journal", str(tmp_path / "journal"), "--noise-floor", "1",
        )  # fmt: skip
    assert (result.exit, result.data["totals"].error) == (Exit.PASS, 0)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4
    assert not [path for path in written if b"key-of-the" in path.read_bytes() or "key-of-the" in path.name]


async def test_without_a_key_of_its_own_the_target_gets_the_baselines():
    async with (
        running_engine(engine_config(api_key="both")) as one,
        running_engine(engine_config(api_key="both")) as other,
    ):
        arguments = ("--baseline", one.url, "--target", other.url, "--prompt", "x", "--noise-floor", "1")
        assert (await run_command("compare-output", *arguments, "--api-key", "both")).exit == Exit.PASS


async def test_an_answer_that_another_key_got_is_not_taken_from_the_cache(tmp_path):
    async with pair({}) as (baseline, target):
        arguments = (
            "batch-compare", "--baseline", baseline, "--target", target, "--dataset", dataset(tmp_path, 3),
            "--cache-dir", str(tmp_path / "cache"), "--noise-floor", "0",
        )  # fmt: skip
        await run_command(*arguments, "--target-api-key", "one")
        result = await run_command(*arguments, "--target-api-key", "other")
    assert any("3 answers were in it, 3 not" in note for note in result.notes)


async def test_a_page_of_html_is_told_in_one_line():
    async def generate(_):
        return web.Response(status=502, body=PAGE, content_type="text/html")

    async with engine_of(generate) as url:
        with pytest.raises(Trouble) as raised:
            await run_command("reproducibility", "--url", url, "--prompt", "x", "--retries", "0")
    assert "/v1/chat/completions answered 502: an HTML page, '502 Bad Gateway' (" in str(raised.value)


@pytest.mark.parametrize(("body", "told"), [
    (PAGE, "an HTML page, '502 Bad Gateway'"),
    (b"<html><body>no</body></html>", "an HTML page"),
    (b"<h1>Bad  Gateway</h1>\n<p>a &amp; b", "Bad Gateway a & b"),
    (b'{"error":\n  "bad"}', '{"error": "bad"}'),
    (b"x" * 500, "x" * 197 + "..."),
    (b"\x1b[31mred\x00", "[31mred"),
    (b"wrong key sk-1", "wrong key (the key)"),
    (b"\xff", "\ufffd"),
    (b"", ""),
])  # fmt: skip
def test_a_refusal_is_one_short_line(body, told):
    assert told_by(body, "sk-1") == told
