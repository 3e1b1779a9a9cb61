"""Engines without token ids that call different tokens alike, and equal texts whose tokens are called differently."""

import json

import pytest
from tests.support.acc.answers import answer, both, entry, halves, speaking
from tests.support.acc.commands import lines_of, run_command, run_line
from tests.support.acc.reports import dataset

from ppd_acc.ask.answers import Answer, identity, read_answer
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare_answers
from ppd_acc.data.report import Side
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Exit
from ppd_acc.page.series import equal_tokens
from ppd_accuracy.answers.flips import ReplayNoise, measure, replay_noise_of

ONE, OTHER = "I say 你好 to you", "I say 你妤 to you"
AT = 7
HALF = "\ufffd"
FLOOR = replay_noise_of([measure([0.05] * 100, [0.01])] * 10)
SAMPLED = "--max-tokens 16 --noise-floor 2 --retries 0"


def nameless(text):
    return [entry("") for _ in text.encode()]


def told_of(text, entries):
    return answer(text, entries(text))


KINDS = {"halves": halves, "nameless": nameless, "bytes": lambda text: halves(text, has_bytes=True)}


def read(told):
    return read_answer(json.dumps(told).encode())


def judged(one, other, floor=FLOOR):
    return compare_answers("s", Question(), read(one), read(other), floor, is_greedy=True)


@pytest.mark.parametrize("entries", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("compare-output", "--prompt hello"),
        ("compare-logprobs", "--prompt hello"),
        ("compare-streaming", "--prompt hello"),
        ("fingerprint", ""),
        ("diagnose", "--prompt hello --repeats 1 --no-cache-salt"),
        ("watch", "--prompt hello --interval 0 --max-iterations 1"),
        ("sensitivity", "--prompt 'hello you' --perturbations 2"),
        ("bisect", "--prompt 'one two three four' --repeats 2 --noise-floor 0"),
    ],
)
async def test_other_texts_never_pass(command, line, entries):
    async with both(told_of(ONE, entries), told_of(OTHER, entries)) as (one, other):
        told = line if "--noise-floor" in line else f"{line} {SAMPLED.replace('--max-tokens 16 ', '')}"
        result = await run_line(command, f"--baseline {one} --target {other} {told}")
        same = await run_line(command, f"--baseline {one} --target {one} {told}")
    assert result.exit in (Exit.DIFFERENT, Exit.INCONCLUSIVE)
    assert not any("yes" in line and "safe to deploy" in line for line in lines_of(result))
    assert same.exit == Exit.PASS


@pytest.mark.parametrize("entries", KINDS.values(), ids=KINDS)
async def test_a_batch_tells_them_apart_and_keeps_telling(tmp_path, entries):
    arguments = ("--dataset", dataset(tmp_path, 3), "--noise-floor", "1")
    path = str(tmp_path / "r.json")
    async with both(told_of(ONE, entries), told_of(OTHER, entries)) as (one, other):
        result = await run_command("batch-compare", "--baseline", one, "--target", other, *arguments, "--output", path)
        same = await run_command("batch-compare", "--baseline", one, "--target", one, *arguments)
    assert (result.exit, same.exit) == (Exit.INCONCLUSIVE, Exit.PASS)
    assert result.data["totals"].unclassified == 3
    (found,) = read_report(path, "--report").samples[0].differences
    assert (found.part, found.at, found.baseline[0], found.target[0]) == ("content", AT, "好", "妤")


async def test_a_snapshot_and_a_cache_keep_them_apart(tmp_path):
    arguments = ("--dataset", dataset(tmp_path, 2), "--noise-floor", "1")
    snapshot, cache = str(tmp_path / "s.json"), str(tmp_path / "cache")
    async with both(told_of(ONE, halves), told_of(OTHER, halves)) as (one, other):
        await run_command("snapshot capture", "--baseline", one, *arguments, "--output", snapshot)
        kept = await run_command("snapshot compare", "--snapshot", snapshot, "--target", other)
        for _ in range(2):
            cached = await run_command(
                "batch-compare", "--baseline", one, "--target", other, *arguments, "--cache-dir", cache
            )
    assert (kept.exit, cached.exit) == (Exit.INCONCLUSIVE, Exit.INCONCLUSIVE)
    assert any("4 answers were in it" in note for note in cached.notes)


async def test_runs_of_one_engine_are_told_apart():
    texts = iter([ONE, ONE, OTHER, ONE] * 2)

    async with speaking(lambda _: told_of(next(texts, ONE), halves)) as url:
        result = await run_line("reproducibility", f"--url {url} --prompt hello --runs 4 --noise-floor 0")
    sequential = result.data["figures"][0]
    assert (sequential["differing"], sequential["prompts"][0]["distinct_answers"]) == (1, 2)
    assert result.exit == Exit.INCONCLUSIVE


async def test_replays_of_a_baseline_that_differ_are_flips_of_its_floor():
    texts = iter([ONE, OTHER])
    async with speaking(lambda _: told_of(next(texts, ONE), halves)) as url:
        result = await run_line(
            "compare-output", f"--baseline {url} --target {url} --prompt hello --noise-floor 1 --concurrency 1"
        )
    assert result.data["noise"]["flips"] == 1


async def test_digests_of_fingerprints_are_of_what_was_said():
    async with both(told_of(ONE, halves), told_of(OTHER, halves)) as (one, other):
        result = await run_line("fingerprint", f"--baseline {one} --target {other} --noise-floor 1")
    assert result.data["is_same_digest"] is False


def test_bytes_tell_which_token_it_is():
    sample = judged(told_of(ONE, KINDS["bytes"]), told_of(OTHER, KINDS["bytes"]))
    assert sample.first_divergence == len("I say 你".encode()) + 1  # 好 and 妤 begin with the same byte
    assert (sample.flip.baseline_token, sample.flip.target_token) == ("bytes:\\xa5", "bytes:\\xa6")


@pytest.mark.parametrize(("gap", "status"), [(0.01, "tie"), (3.0, "real")])
def test_likeliest_tokens_of_one_name_have_margins_of_their_own(gap, status):
    """Both list both halves, which are called alike; each engine takes its own by `gap`."""

    def saying(text, mine, theirs):
        tops = ((HALF, mine, -0.1), (HALF, theirs, -0.1 - gap))
        return answer(text, [entry("a", b"a"), entry(HALF, mine, tops)])

    sample = judged(saying("a", b"\xe5", b"\xe4"), saying("a", b"\xe4", b"\xe5"))
    assert (sample.status, sample.first_divergence) == (status, 1)
    assert sample.flip.shift == pytest.approx(2 * gap)


def test_without_bytes_the_place_is_a_character_and_no_margin_excuses_it():
    sample = judged(told_of(ONE, halves), told_of(OTHER, halves))
    assert (sample.status, sample.flip) == ("unclassified", None)
    assert [(each.part, each.at) for each in sample.differences] == [("content", AT)]
    assert sample.compared_tokens == len("I say ")  # behind them any token may be another one


def test_an_earlier_difference_that_names_hide_is_not_judged_at_a_later_token():
    """The first different name is a near tie, but what parts the answers is the character before it."""
    tops = (("b", b"", -0.1), ("c", b"", -0.11))
    one = answer("好b", [*halves("好"), {**entry("b", None, tops)}])
    other = answer("妤c", [*halves("妤"), {**entry("c", None, tops[::-1])}])
    assert judged(one, other).status == "unclassified"
    later = answer("好c", [*halves("好"), {**entry("c", None, tops[::-1])}])
    assert (judged(one, later).status, judged(one, later).first_divergence) == ("tie", 3)


def test_unsure_names_in_front_of_a_plain_difference_leave_it_judged():
    tops = (("b", b"", -0.1), ("c", b"", -0.11))
    sides = [
        answer(f"\U0001f98a is {name}", [*halves("\U0001f98a is "), entry(name, None, order)])
        for name, order in (("b", tops), ("c", tops[::-1]))
    ]
    assert (judged(*sides).status, judged(*sides).first_divergence) == ("tie", 8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["abc"], ["a", "b", "c"]),
        (["\u0120abc"], ["abc"]),
        (["abc", "</s>"], ["abc"]),
        ([HALF, "bc"], ["a", "bc"]),
    ],
)
def test_equal_texts_in_other_pieces_or_under_other_names_are_equal(one, other):
    sides = [answer("abc", [entry(name) for name in names]) for names in (one, other)]
    assert judged(*sides).status == "equal"
    assert judged(*sides[::-1]).status == "equal"
    assert identity(read(sides[0])) == identity(read(sides[1]))


def test_answers_that_end_within_other_characters_are_different_though_their_texts_are_not():
    one, other = (
        answer(f"a{HALF}", [entry("a", b"a"), entry(HALF, half)], finish="length") for half in (b"\xe4", b"\xe5")
    )
    assert judged(one, other).first_divergence == 1
    assert identity(read(one)) != identity(read(other))
    assert judged(one, one).status == "equal"


def test_names_that_are_equal_and_texts_that_are_not_are_different_also_without_halves():
    """A name without its space is the name of two tokens."""
    one, other = (answer(text, [entry("so"), entry("me")]) for text in ("so me", "some"))
    sample = judged(one, other)
    assert (sample.status, sample.differences[0].at) == ("unclassified", 2)


@pytest.mark.parametrize("one", [b"\xe5", None])
def test_a_half_that_one_engine_tells_is_no_other_one_than_that_of_an_engine_that_does_not(one):
    """As a snapshot without bytes against an engine with them: what parts them is behind the halves."""
    tops = (("b", b"", -0.1), ("c", b"", -0.11))
    told = [[entry(HALF, b"\xe5"), entry(HALF, b"\xa5\xbd")], [entry(HALF), entry(HALF)]]
    sides = [
        answer(f"好{name}", [*halves_of, {**entry(name, None, order)}])
        for name, halves_of, order in zip("bc", told if one else told[::-1], (tops, tops[::-1]), strict=True)
    ]
    assert (judged(*sides).status, judged(*sides).flip) == ("unclassified", None)


def test_names_with_the_tokenizers_own_spaces_do_not_say_where_they_part_from_others():
    tops = (("b", b"", -0.1), ("c", b"", -9.0))
    one = answer("so it b", [entry("so"), entry("\u0120it"), entry("\u0120b", None, tops)])
    other = answer("so it c", [entry("so"), entry(" it"), entry(" c", None, tops)])
    assert (judged(one, other).status, judged(one, other).flip) == ("unclassified", None)
    thinking = answer("so it c", [entry("hm"), entry("so"), entry(" it"), entry(" c")], reasoning="hm")
    assert judged(other, thinking).first_divergence == 0


def test_completions_that_name_tokens_are_compared_by_texts():
    def completion(text):
        names = [HALF if ord(character) > 127 else character for character in text]
        choice = {"index": 0, "text": text, "logprobs": {"tokens": names, "token_logprobs": [-0.1] * len(names)}}
        return {"id": "cmpl-1", "choices": [{**choice, "finish_reason": "stop"}]}

    sample = judged(completion(ONE), completion(OTHER))
    assert (sample.status, sample.differences[0].at) == ("unclassified", AT)
    assert judged(completion(ONE), completion(ONE)).status == "equal"


def test_a_difference_without_a_known_token_is_not_counted_as_equal_to_the_end():
    sample = judged(told_of("好" * 9, halves), told_of("妤" * 9, halves))
    assert sample.is_divergent
    assert equal_tokens(sample) == 0


def test_the_same_ids_that_read_as_other_texts_are_a_fault_of_reading():
    one, other = (
        Answer(text=text, tokens=[5, 6], unit="tokens", finish_reason="stop") for text in ("a b", "ab")
    )
    sample = compare_answers("s", Question(), one, other, ReplayNoise(), is_greedy=False)
    assert (sample.status, sample.tags, sample.flip) == ("real", ["same-tokens"], None)


def test_a_saved_run_that_called_other_texts_equal_is_read_anew(tmp_path):
    """As older programs wrote it: names without bytes, and totals and a gate that rest on them."""
    names = ["a", HALF, HALF, HALF]
    sides = {
        side: {"text": text, "tokens": names, "finish_reason": "stop"}
        for side, text in (("baseline", "a好"), ("target", "a妤"))
    }
    samples = [
        {"sample_id": "0", "status": "equal", "compared_tokens": 4, **sides},
        {"sample_id": "1", "status": "equal", "compared_tokens": 4, **sides, "target": sides["baseline"]},
        {"sample_id": "2", "status": "equal", "compared_tokens": 4, **sides, "tags": ["equal-by:ignore-case"]},
        {"sample_id": "3", "status": "equal", "compared_tokens": 4, **sides, "metadata": {"method": "score"}},
    ]
    path = tmp_path / "old.json"
    told = {"kind": "batch-compare", "version": 1, "gate": {"outcome": "pass"}, "samples": samples}
    path.write_text(json.dumps(told))
    report = read_report(path, "--report")
    assert [sample.status for sample in report.samples] == ["unclassified", "equal", "equal", "equal"]
    assert (report.totals, report.gate) == (None, {})
    assert report.samples[0].differences[0].at == 1


async def test_old_and_new_runs_are_held_against_each_other_by_texts(tmp_path):
    def saved(name, text):
        side = {"text": text, "tokens": [HALF] * 3, "finish_reason": "stop"}
        sample = {"sample_id": "0", "status": "equal", "compared_tokens": 3, "baseline": side, "target": side}
        (tmp_path / name).write_text(json.dumps({"kind": "batch-compare", "version": 1, "samples": [sample]}))
        return str(tmp_path / name)

    result = await run_command("diff", "--old", saved("old.json", "好"), "--new", saved("new.json", "妤"))
    (row,) = result.data["changed"]
    assert row["target"] == {"old": "好", "new": "妤"}


def test_a_side_tells_its_ids_only_where_all_tokens_are():
    assert Side(tokens=[1, 2]).ids == [1, 2]
    assert Side(tokens=[1, "a"]).ids is None
    assert Side(tokens=["a"]).ids is None
