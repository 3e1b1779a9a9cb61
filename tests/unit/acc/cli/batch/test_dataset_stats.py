"""dataset-stats: how many prompts there are, how long, and which are there twice."""

import itertools

import pytest
from tests.support.acc.commands import run_command

from ppd_acc.cli.batch.dataset_stats import histogram
from ppd_acc.outcome import Exit, Mistake, Trouble
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.model.tokens import Tokenizer

LINES = """
{"id": "a", "prompt": "incomprehensibilities notwithstanding"}
{"id": "b", "prompt": "one two three four", "expected": "five"}
{"id": "c", "prompt": "incomprehensibilities notwithstanding"}
{"id": "d", "messages": [{"role": "user", "content": "incomprehensibilities notwithstanding"}]}
{"id": "e", "prompt": "incomprehensibilities notwithstanding", "temperature": 1}
"""


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(LINES)
    return str(path)


async def test_without_an_engine_lengths_are_words_and_called_so(dataset):
    result = await run_command("dataset-stats", dataset)
    data = result.data
    assert result.exit == Exit.PASS
    assert (data["samples"], data["unit"]) == (5, "words")
    assert (data["lengths"]["sum"], data["lengths"]["min"], data["lengths"]["max"]) == (12, 2, 4)
    assert data["characters"]["max"] == 37
    assert data["with_expected"] == 1
    assert "--url" in result.notes[0]


async def test_the_same_question_twice_is_a_duplicate_and_another_setting_is_another_question(dataset):
    data = (await run_command("dataset-stats", "--dataset", dataset)).data
    assert data["duplicates"] == [["a", "c"]]
    assert data["unique_prompts"] == 4


async def test_an_engine_counts_its_own_tokens(dataset):
    async with running_engine(EngineConfig(role="aggregated")) as engine:
        result = await run_command(
            "dataset-stats", dataset, "--url", engine.url, "--endpoint", "completions", "--limit", "3"
        )
    expected = [
        len(Tokenizer().encode(text)) for text in ("incomprehensibilities notwithstanding", "one two three four")
    ]
    assert result.data["unit"] == "tokens"
    assert result.data["lengths"]["sum"] == 2 * expected[0] + expected[1]


async def test_an_engine_that_is_down_is_trouble(dataset):
    with pytest.raises(Trouble):
        await run_command("dataset-stats", dataset, "--url", "http://127.0.0.1:9", "--retries", "0")


async def test_token_ids_need_no_engine(tmp_path):
    (tmp_path / "ids.jsonl").write_text('{"prompt": [1, 2, 3]}\n{"prompt": [4]}\n')
    data = (await run_command("dataset-stats", "ids.jsonl", at=tmp_path)).data
    assert (data["unit"], data["lengths"]["sum"]) == ("tokens", 4)


async def test_a_template_is_filled(tmp_path):
    (tmp_path / "q.csv").write_text("prompt,topic\nwhy,sea\n")
    (tmp_path / "t.txt").write_text("About {topic}: {prompt}?")
    data = (await run_command("dataset-stats", "q.csv", "--template", "t.txt", at=tmp_path)).data
    assert data["characters"]["max"] == len("About sea: why?")


@pytest.mark.parametrize("line", [(), ("a.jsonl", "--dataset", "b.jsonl"), ("missing.jsonl",)])
async def test_no_dataset_is_a_mistake(tmp_path, line):
    with pytest.raises(Mistake):
        await run_command("dataset-stats", *line, at=tmp_path)


@pytest.mark.parametrize("values", [[5], [1, 2, 3], list(range(100)), [0, 1000], [7, 7, 7]])
def test_every_length_is_in_one_bin(values):
    bins = histogram(values)
    assert len(bins) <= 10
    assert sum(each["samples"] for each in bins) == len(values)
    assert (bins[0]["low"], bins[-1]["high"]) == (min(values), max(values))
    assert all(one["high"] + 1 == other["low"] for one, other in itertools.pairwise(bins))
