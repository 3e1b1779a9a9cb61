"""Kept answers: found only for the very same request, for a while, and removed without touching anything else."""

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.engines import answering, scripted_engine
from tests.support.acc.reports import dataset

from ppd_acc.ask.answers import Answer
from ppd_acc.ask.cache import Cache, clear, key_of, stats_of
from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Exit, Mistake

URL = "http://engine:8000/v1/chat/completions"
BODY = {"model": "m", "max_tokens": 11, "messages": [{"role": "user", "content": "hi"}]}
ANSWER = Answer(text="a b", tokens=[1, 2], unit="tokens", logprobs=[-0.5, None], tops=[{"1": -0.5}, {}])


@pytest.mark.parametrize(
    "other",
    [
        ("baseline", URL, {}, BODY),
        ("target", URL + "/", {}, BODY),
        ("target", URL, {"authorization": "Bearer x"}, BODY),
        ("target", URL, {}, {**BODY, "max_tokens": 3}),
        ("target", URL, {}, {**BODY, "seed": 1}),
        ("target", URL, {}, {**BODY, "messages": [{"role": "system", "content": "hi"}]}),
    ],
)
def test_anything_else_that_is_sent_is_another_key(other):
    assert key_of(*other) != key_of("target", URL, {}, BODY)


def test_the_order_of_fields_and_the_case_of_headers_make_no_other_key():
    turned = dict(reversed(BODY.items()))
    assert key_of("target", URL, {"X-A": "1"}, turned) == key_of("target", URL, {"x-a": "1"}, BODY)


def test_an_answer_is_kept_for_its_time_and_not_from_the_future(tmp_path):
    now = [1000.0]
    cache = Cache(tmp_path / "c", 60.0, lambda: now[0])
    assert cache.get("0" * 64) is None
    cache.put("0" * 64, "http://engine", ANSWER)
    assert cache.get("0" * 64) == ANSWER
    now[0] = 1060.0
    assert cache.get("0" * 64) == ANSWER
    now[0] = 1060.1
    assert cache.get("0" * 64) is None
    now[0] = 999.0
    assert cache.get("0" * 64) is None
    assert (cache.hits, cache.misses) == (2, 3)


def test_a_damaged_entry_is_no_answer(tmp_path):
    cache = Cache(tmp_path, 60.0, lambda: 0.0)
    cache.put("0" * 64, "http://engine", ANSWER)
    path = tmp_path / f"{'0' * 64}.json"
    path.write_bytes(path.read_bytes()[:-5])
    assert cache.get("0" * 64) is None


def test_clearing_removes_only_our_files(tmp_path):
    cache = Cache(tmp_path, 60.0, lambda: 0.0)
    for digit in "01":
        cache.put(digit * 64, "http://engine", ANSWER)
    path = tmp_path / f"{'1' * 64}.json"
    path.write_bytes(path.read_bytes()[:-5])
    (tmp_path / f".{'2' * 64}.17.tmp").write_bytes(b"cut off")
    others = ["notes.txt", f"{'3' * 64}.json", f"{'4' * 63}.json"]
    for name in others:
        (tmp_path / name).write_text('{"mine": 1}', encoding="utf-8")
    (tmp_path / f"{'5' * 64}.json").mkdir()
    (tmp_path / f"{'6' * 64}.json").symlink_to(tmp_path / "notes.txt")
    stats = stats_of(tmp_path, 60.0, 10.0)
    assert (stats.entries, stats.foreign, stats.by_url) == (2, 6, {"http://engine": 1, "damaged": 1})
    assert clear(tmp_path) == (3, 5)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([*others, f"{'5' * 64}.json", f"{'6' * 64}.json"])


def test_a_directory_that_is_not_there_is_empty_and_a_file_is_a_mistake(tmp_path):
    assert clear(tmp_path / "none") == (0, 0)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(Mistake, match="no directory"):
        clear(tmp_path / "file")


async def test_the_commands_use_the_directory_of_the_flag_of_the_file_or_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    Cache(tmp_path / "c", 60.0, lambda: 1_799_999_000.0).put("0" * 64, "http://engine", ANSWER)
    told = await run_command("cache stats", "--cache-dir", str(tmp_path / "c"), "--cache-ttl", "10")
    assert (told.exit, told.data["entries"], told.data["expired"]) == (Exit.PASS, 1, 1)
    settings = Settings(tables={"batch": {"cache_dir": str(tmp_path / "c")}})
    assert (await run_command("cache clear", settings=settings)).data["removed"] == 1
    assert (await run_command("cache clear")).data["directory"] == str(tmp_path / "xdg" / "ppd-acc")


async def test_a_noise_floor_is_never_taken_from_the_cache_and_answers_are_only_when_told(tmp_path):
    asked = {"chat": 0}

    def counting(body):
        asked["chat"] += "prompt_logprobs" not in body
        return answering({}, is_target=False)(body)

    async with scripted_engine(counting) as url:
        arguments = ["batch-compare", "--baseline", url, "--target", url, "--dataset", dataset(tmp_path, 5)]
        arguments += ["--noise-floor", "3", "--concurrency", "1"]
        for _ in range(2):
            await run_command(*arguments)
        assert asked["chat"] == 2 * (6 + 10)
        asked["chat"] = 0
        for _ in range(2):
            await run_command(*arguments, "--cache-dir", str(tmp_path / "cache"))
        assert asked["chat"] == 6 + 10 + 6
        asked["chat"] = 0
        await run_command(*arguments, "--cache-dir", str(tmp_path / "cache"), "--max-tokens", "3")
        assert asked["chat"] == 6 + 10
