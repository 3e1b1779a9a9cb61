import argparse
import asyncio
import sys

import aiohttp
import pytest

from ppd_shell.settings import ConfigError
from ppd_sim.command import add_arguments, config_from
from ppd_sim.config import EngineConfig

LIMIT_S = 30


def parsed(*flags):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return config_from(parser.parse_args(["--role", "decode", "--port", "0", *flags]))


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "sim.toml"
    path.write_text(
        'model_name = "m"\nadapters = ["a", "b"]\n[timing]\nslots = 4\ndecode_ms_per_token = 2\n[model]\nseed = 3\n'
    )
    config = parsed("--config", str(path), "--slots", "8", "--cache-blocks", "7")
    assert (config.model_name, config.adapters, config.cache_blocks) == ("m", ("a", "b"), 7)
    assert (config.timing.slots, config.timing.decode_ms_per_token, config.model.seed) == (8, 2, 3)
    assert parsed("--seed", "5").model.seed == 5


def test_announcing_means_p2p_nccl():
    config = parsed("--announce", "127.0.0.1:30001", "--kv-port", "0")
    assert (config.handoff, config.dies_untagged) == ("p2p_nccl", True)
    assert not parsed("--announce", "127.0.0.1:30001", "--kv-port", "0", "--ppd").dies_untagged
    assert parsed().handoff == "nixl"


def test_every_mistake_in_a_file_is_named(tmp_path):
    path = tmp_path / "sim.toml"
    path.write_text('slots = 4\nmodel_name = 3\n[timing]\nslots = "many"\n[model]\nnoise = 1\n')
    with pytest.raises(ConfigError) as caught:
        parsed("--config", str(path))
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [
        "slots", "model_name", "timing.slots", "model.noise",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"handoff": "p2p_nccl"}, "kv_port"),
        ({"announce": "127.0.0.1:1"}, "kv_port"),
        ({"announce": "nowhere", "kv_port": 0}, "announce"),
        ({"block_tokens": 0}, "block_tokens"),
        ({"metric_names": "all"}, "metric_names"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, part):
    with pytest.raises(ConfigError, match=part):
        EngineConfig(role="decode", **fields)


async def start(*flags):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ppd_sim.command", "--port", "0", *flags, stdout=asyncio.subprocess.PIPE
    )


async def test_the_command_says_where_it_listens_and_ends_on_term(http):
    process = await start("--role", "prefill", "--model", "m")
    try:
        async with asyncio.timeout(LIMIT_S):
            line = (await process.stdout.readline()).decode()
            assert line.startswith("listening on http://127.0.0.1:")
            async with http.get(line.split()[-1] + "/v1/models") as response:
                assert (await response.json())["data"][0]["id"] == "m"
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_command_fails_when_its_engine_dies(http):
    process = await start("--role", "decode", "--handoff", "p2p_nccl", "--kv-port", "0")
    try:
        async with asyncio.timeout(LIMIT_S):
            url = (await process.stdout.readline()).decode().split()[-1]
            with pytest.raises(aiohttp.ClientError):
                await http.post(url + "/v1/completions", json={"prompt": "a"})
            assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
