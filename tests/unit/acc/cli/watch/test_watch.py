import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest
from tests.support.acc.commands import lines_of, run_command, run_line, surroundings
from tests.support.acc.engines import engine_config

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.engines import engines
from ppd_acc.cli.watch.watch import until_signal
from ppd_acc.outcome import Exit, Mistake, Trouble
from ppd_acc.watch.rounds import Plan, Watcher, exit_of, gate
from ppd_acc.watch.sinks import LogFile, WatchMetrics, metrics_server
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault

CHAT = "/v1/chat/completions"
SAMPLING = Sampling(temperature=0.0, top_p=1.0, seed=42, max_tokens=4, top_k=3)


def plan(**changes):
    settings = {
        "prompts": ("A story",), "interval_s": 60.0, "max_iterations": 3, "alert_threshold": None, "noise_answers": 2,
        "noise_every": 100, "window": 10, "fail_threshold": None, "confidence": 0.95,
    }  # fmt: skip
    return Plan(**(settings | changes))


class Clock:
    """Passes only by waiting, and by what each round is said to take."""

    def __init__(self):
        self.now = 1000.0
        self.waits = []

    def __call__(self):
        return self.now

    async def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@asynccontextmanager
async def watching(the_plan, *, clock=None, sinks=(), target_noise_nats=0.0, wait=None):
    clock = clock or Clock()
    access = Access(
        model=None,
        api_key=None,
        headers={},
        endpoint="chat",
        timeout_s=5.0,
        retries=0,
        retry_delay_s=0.0,
        concurrency=8,
    )
    async with (
        running_engine(engine_config()) as one,
        running_engine(engine_config(engine_noise_nats=target_noise_nats)) as other,
        engines(access, one.url, other.url) as (baseline, target),
    ):
        yield (
            one,
            other,
            Watcher(
                baseline,
                target,
                SAMPLING,
                the_plan,
                wall_clock=clock,
                clock=clock,
                wait=wait or clock.wait,
                sinks=sinks,
            ),
        )


def exit_code(end, watcher, the_plan):
    return exit_of(end, watcher.state, gate(watcher.state.in_window(), the_plan.fail_threshold, the_plan.confidence))


async def test_rounds_begin_an_interval_apart_whatever_they_take():
    clock = Clock()

    def takes(seconds):
        def sink(done, state):
            clock.now += seconds

        return sink

    async with watching(plan(max_iterations=4), clock=clock, sinks=[takes(25.0)]) as (_, _, watcher):
        assert await watcher.run() == "iterations"
    assert clock.waits == [35.0, 35.0, 35.0]
    async with watching(plan(max_iterations=2), clock=clock, sinks=[takes(90.0)]) as (_, _, watcher):
        await watcher.run()
    assert clock.waits[3:] == [0.0]  # late already


async def test_equal_engines_pass_and_only_a_window_is_kept():
    the_plan = plan(max_iterations=25, window=10)
    async with watching(the_plan) as (_, _, watcher):
        end = await watcher.run()
    assert exit_code(end, watcher, the_plan) == Exit.PASS
    assert len(watcher.state.window) == 10
    assert watcher.state.comparisons == {"equal": 25}


async def test_failures_in_a_row_end_the_watch():
    the_plan = plan(max_iterations=50, alert_threshold=3)
    async with watching(the_plan) as (_, other, watcher):
        for nth in (2, 4, 5, 6):  # a round that passes begins the count anew
            other.faults.add(Fault(kind="corrupt", path=CHAT, nth=nth))
        end = await watcher.run()
    assert end == "alert"
    assert watcher.state.rounds == {"pass": 2, "fail": 4}
    assert exit_code(end, watcher, the_plan) == Exit.DIFFERENT


async def test_engines_that_only_fail_are_trouble_and_no_difference():
    the_plan = plan(max_iterations=50, alert_threshold=2)
    async with watching(the_plan) as (_, other, watcher):
        other.faults.add(Fault(kind="status", path=CHAT))
        end = await watcher.run()
    assert (end, watcher.state.rounds) == ("alert", {"error": 2})
    assert exit_code(end, watcher, the_plan) == Exit.INFRASTRUCTURE


async def test_where_nothing_was_compared_the_reason_is_the_verdict():
    async with running_engine(engine_config()) as one:
        result = await run_command(
            "watch", "--baseline", one.url, "--target", "http://127.0.0.1:1", "--prompt", "x", "--interval", "0",
            "--max-iterations", "3", "--retries", "0", "--noise-floor", "0",
        )  # fmt: skip
    told = next(lines_of(result))
    assert result.exit == Exit.INFRASTRUCTURE
    assert told.startswith(
        "inconclusive: no comparison was possible: the target failed 3 times in a row: http://127.0.0.1:1/"
    )


async def test_an_error_in_the_window_leaves_a_pass_partial_until_it_is_out_of_it():
    for rounds, expected in ((3, Exit.INFRASTRUCTURE), (12, Exit.PASS)):
        the_plan = plan(max_iterations=rounds)
        async with watching(the_plan) as (_, other, watcher):
            other.faults.add(Fault(kind="status", path=CHAT, nth=1))
            assert exit_code(await watcher.run(), watcher, the_plan) == expected


async def test_the_noise_floor_is_renewed_now_and_then():
    clock, seen = Clock(), []
    async with watching(
        plan(max_iterations=7, noise_every=3), clock=clock, sinks=[lambda done, state: seen.append(state.floor_at)]
    ) as (_, _, watcher):
        await watcher.run()
    assert seen == [1000.0] * 3 + [1180.0] * 3 + [1360.0]


async def test_a_baseline_that_fails_at_first_is_an_error_until_it_answers():
    async with watching(plan(max_iterations=3)) as (one, _, watcher):
        one.faults.add(Fault(kind="status", path=CHAT, times=4))  # all that the noise floor asks
        await watcher.run()
    assert watcher.state.rounds == {"error": 1, "pass": 2}
    assert watcher.state.floor.answers == 2


async def test_a_limit_is_held_against_the_interval_of_the_window():
    the_plan = plan(max_iterations=20, window=20, fail_threshold=0.5)
    async with watching(the_plan) as (_, other, watcher):
        other.faults.add(Fault(kind="corrupt", path=CHAT, nth=2))
        end = await watcher.run()
    assert exit_code(end, watcher, the_plan) == Exit.PASS  # 1 of 20 is at most half, surely
    assert gate(watcher.state.in_window(), 0.05, 0.95).outcome == "inconclusive"
    assert gate(watcher.state.in_window(), None, 0.95).outcome == "fail"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_wait(number):
    async def wait(seconds):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    before = signal.getsignal(number)
    async with watching(plan(max_iterations=None), wait=wait) as (_, _, watcher):
        assert await until_signal(watcher) == "signal"
    assert watcher.state.rounds == {"pass": 1}
    assert signal.getsignal(number) == before


async def test_a_signal_ends_a_round_that_hangs_and_leaves_it_out():
    hangs = Fault(kind="hang", path=CHAT)

    async def wait(seconds):
        other.faults.add(hangs)
        asyncio.get_running_loop().call_soon(stop_when_asked)

    def stop_when_asked():
        if other.faults.hits():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            asyncio.get_running_loop().call_soon(stop_when_asked)

    async with watching(plan(max_iterations=None), wait=wait) as (_, other, watcher):
        assert await until_signal(watcher) == "signal"
    assert watcher.state.rounds == {"pass": 1}


async def test_the_log_has_a_whole_line_after_every_round(tmp_path):
    the_plan, path, seen = plan(max_iterations=3), tmp_path / "watch.jsonl", []
    path.write_text('{"iteration": "of an earlier watch"}\n{"iteration": 7, "unfini')
    log = LogFile(path, the_plan, surroundings().errors)
    async with watching(the_plan, sinks=[log, lambda done, state: seen.append(path.read_text().splitlines())]) as (
        _,
        other,
        watcher,
    ):
        other.faults.add(Fault(kind="corrupt", path=CHAT, nth=2))
        await watcher.run()
    assert [len(lines) for lines in seen] == [3, 4, 5]
    assert path.read_text().endswith("\n")
    rounds = [json.loads(line) for line in seen[-1][2:]]
    assert [each["iteration"] for each in rounds] == [0, 1, 2]
    assert [each["outcome"] for each in rounds] == ["pass", "fail", "pass"]
    assert rounds[1]["samples"][0]["flip"]["position"] == 0
    assert rounds[2]["window"] == {"size": 10, "equal": 2, "tie": 0, "real": 1, "unclassified": 0, "error": 0}
    assert [each["at"] for each in rounds] == [1000.0, 1060.0, 1120.0]


async def test_a_log_that_cannot_be_written_is_told_and_the_watch_goes_on(tmp_path):
    the_plan, context = plan(max_iterations=2), surroundings()
    (tmp_path / "log").mkdir()
    log = LogFile(tmp_path / "log", the_plan, context.errors)
    async with watching(the_plan, sinks=[log]) as (_, _, watcher):
        await watcher.run()
    assert log.lost == 2
    assert "round 1 is lost" in context.errors.file.getvalue()


async def test_metrics_are_served_in_the_same_loop():
    the_plan = plan(max_iterations=3)
    metrics = WatchMetrics(the_plan)
    async with watching(the_plan, sinks=[metrics]) as (_, other, watcher):
        other.faults.add(Fault(kind="corrupt", path=CHAT, nth=3))
        await watcher.run()
    async with metrics_server("127.0.0.1", 0, metrics) as url, aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            text = await response.text()
            assert response.headers["Content-Type"].startswith("text/plain")
        with pytest.raises(Trouble, match="--metrics-port"):
            async with metrics_server("127.0.0.1", int(re.search(r":(\d+)/", url)[1]), metrics):
                pass
    assert 'ppd_acc_watch_rounds_total{outcome="pass"} 2.0' in text
    assert 'ppd_acc_watch_comparisons_total{status="real"} 1.0' in text
    assert 'ppd_acc_watch_gate{outcome="fail"} 1.0' in text
    assert "ppd_acc_watch_failures_in_a_row 1.0" in text
    assert "ppd_acc_watch_last_round_timestamp_seconds 1120.0" in text


async def test_the_command_writes_its_log_and_its_metrics_file(tmp_path):
    async with running_engine(engine_config()) as one, running_engine(engine_config(engine_noise_nats=6.0)) as other:
        line = f"--baseline {one.url} --target {other.url} --prompt 'A story' --prompt Another --interval 0"
        files = f"--log {tmp_path}/w.jsonl --metrics-file {tmp_path}/w.prom --metrics-port 0"
        result = await run_line("watch", f"{line} {files} --max-iterations 20 --alert-threshold 2 --noise-floor 2")
    assert result.exit == Exit.DIFFERENT
    assert result.data["end"] == "alert"
    assert result.data["comparisons"]["real"] == 4
    assert len((tmp_path / "w.jsonl").read_text().splitlines()) == 2
    assert b'rounds_total{outcome="fail"} 2.0' in (tmp_path / "w.prom").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["w.jsonl", "w.prom"]


async def test_a_log_in_no_directory_is_a_mistake():
    with pytest.raises(Mistake, match="--log"):
        await run_line("watch", "--baseline http://a --target http://b --prompt a --log /nowhere/at/all")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_process_ends_with_the_gates_code_when_it_is_told_to(number):
    async with running_engine(engine_config()) as one, running_engine(engine_config()) as other:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ppd_acc.cli.main", "watch", "--baseline", one.url, "--target", other.url,
            "--prompt", "A story", "--interval", "3600", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        assert b"round 0: pass" in await process.stderr.readline()
        process.send_signal(number)
        out, err = await process.communicate()
    assert process.returncode == Exit.PASS
    assert b"1 round (1 pass); ended: told to end by a signal" in out
    assert err == b""
