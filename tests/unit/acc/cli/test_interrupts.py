"""What a command says that is told to end while it works."""

import asyncio
import json
import signal
import sys

import pytest
from aiohttp import web
from tests.support.acc.engines import answering, engine_of

from ppd_acc.outcome import Exit

PROGRAM = (sys.executable, "-m", "ppd_acc.cli.main")
IN_FOREGROUND, IN_BACKGROUND = (
    (sys.executable, "-c", f"import os, signal, sys; signal.signal(signal.SIGINT, signal.{handler});"
     " os.execv(sys.argv[1], sys.argv[1:])")
    for handler in ("SIG_DFL", "SIG_IGN")
)  # fmt: skip
"""How a shell starts a command, whatever these tests were started as: in its background Ctrl-C is ignored."""


async def ended(answers, number, *line, before=IN_FOREGROUND):
    """How the command ends and what it says, told to end when its engine has given so many answers and hangs."""
    answer, is_hanging, released = answering({}, is_target=False), asyncio.Event(), asyncio.Event()
    left = answers

    async def generate(request):
        nonlocal left
        body, left = await request.json(), left - 1
        if left < 0:
            is_hanging.set()
            await released.wait()
        return web.json_response(dict(answer(body)))

    async with engine_of(generate) as url:
        arguments = [each.replace("URL", url) for each in line]
        process = await asyncio.create_subprocess_exec(*before, *PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE)
        try:
            await asyncio.wait_for(is_hanging.wait(), 25)
            process.send_signal(number)
            _, err = await asyncio.wait_for(process.communicate(), 25)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            released.set()
    return process.returncode, err.decode()


def batch(tmp_path, *more):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"prompt {number}"}) + "\n" for number in range(20)))
    return (
        "batch-compare", "--baseline", "URL", "--target", "URL", "--dataset", str(prompts), "--concurrency", "1",
        "--output", str(tmp_path / "out.json"), *more,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "before"), [
    (signal.SIGTERM, IN_FOREGROUND), (signal.SIGINT, IN_FOREGROUND), (signal.SIGTERM, IN_BACKGROUND),
], ids=["SIGTERM", "SIGINT", "SIGTERM in the background"])  # fmt: skip
async def test_a_batch_says_how_it_goes_on(tmp_path, number, before):
    code, err = await ended(12, number, *batch(tmp_path, "--noise-floor", "0"), before=before)
    assert code == Exit.INFRASTRUCTURE
    assert "finished samples in " in err
    assert "the same line with --resume goes on" in err
    assert err.endswith("ppd-acc batch-compare: interrupted\n")
    assert "Traceback" not in err


async def test_a_batch_that_has_finished_nothing_does_not_say_that_it_has(tmp_path):
    code, err = await ended(3, signal.SIGTERM, *batch(tmp_path, "--noise-floor", "9"))
    assert code == Exit.INFRASTRUCTURE
    assert "nothing is finished: the noise floor was still being measured" in err
    assert "--resume" not in err


async def test_every_other_command_ends_as_by_an_interrupt(tmp_path):
    line = ("compare-output", "--baseline", "URL", "--target", "URL", "--prompt", "x")
    code, err = await ended(2, signal.SIGTERM, *line)
    assert (code, err) == (Exit.INFRASTRUCTURE, "ppd-acc compare-output: interrupted\n")
