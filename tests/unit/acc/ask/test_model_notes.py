"""Two engines with different models: every command that compares them says so."""

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.engines import engine_config

from ppd_sim.engine import running_engine

COMMANDS = {
    "compare-output": ("--prompt", "a b"),
    "compare-logprobs": ("--prompt", "a b"),
    "compare-streaming": ("--prompt", "a b"),
    "fingerprint": ("--max-tokens", "2"),
    "bisect": ("--prompt", "a b c d", "--repeats", "1", "--max-runs", "2"),
    "sensitivity": ("--prompt", "a b", "--perturbations", "1"),
    "reproducibility": ("--prompt", "a b", "--runs", "2"),
    "watch": ("--prompt", "a b", "--max-iterations", "1"),
}


async def noted(name, target_model, *more):
    one, other = engine_config(model_name="sim"), engine_config(model_name=target_model)
    async with running_engine(one) as baseline, running_engine(other) as target:
        result = await run_command(
            name, "--baseline", baseline.url, "--target", target.url, "--noise-floor", "1", *more
        )
    return [note for note in result.notes if "sim" in note], baseline.url, target.url


@pytest.mark.parametrize("name", COMMANDS)
async def test_another_model_is_a_note(name):
    notes, _, url = await noted(name, "other", *COMMANDS[name])
    assert notes == [f"{url} serves 'other', the baseline 'sim'"]


async def test_the_same_model_is_none():
    assert (await noted("compare-output", "sim", "--prompt", "a b"))[0] == []


async def test_diagnose_names_the_models_of_all_engines():
    notes, baseline, target = await noted("diagnose", "other", "--prompt", "a b", "--repeats", "1")
    assert notes[0] == f"the model's name differs: sim on {baseline}, other on {target}"
