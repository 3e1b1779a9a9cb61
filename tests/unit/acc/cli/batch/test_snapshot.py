"""snapshot: what is kept, and later engines held against it; the published tool's snapshots, too."""

import json

import pytest
from tests.support.acc.commands import run_command
from tests.support.acc.engines import NOISE_NATS, TOKENS, answering, faulty_engine, pair, scripted_engine
from tests.support.acc.reports import dataset

from ppd_acc.data.snapshots import read_snapshot
from ppd_acc.outcome import Exit, Mistake


async def captured(tmp_path, url, *arguments, count=4):
    return await run_command(
        "snapshot capture", "--baseline", url, "--dataset", dataset(tmp_path, count), "--output",
        str(tmp_path / "s.json"), "--noise-floor", "2", *arguments,
    )  # fmt: skip


async def test_everything_that_a_comparison_needs_is_kept(tmp_path):
    async with pair({}) as (baseline, _):
        result = await captured(tmp_path, baseline, "--max-tokens", "9")
    snapshot = read_snapshot(tmp_path / "s.json")
    assert result.exit == Exit.PASS
    assert (snapshot.sampling["max_tokens"], snapshot.datasets[0].samples) == (9, 4)
    kept = snapshot.samples[2]
    assert (kept.sample_id, kept.prompt, kept.answer.ids) == ("s2", "q2", list(TOKENS))
    assert (kept.answer.finish_reason, len(kept.answer.tops)) == ("length", len(TOKENS))
    assert snapshot.floor.largest_shift == pytest.approx(NOISE_NATS)


async def test_a_target_is_judged_by_the_noise_of_that_time(tmp_path):
    async with pair({"q1": 3.0, "q2": 0.002}) as (baseline, target):
        await captured(tmp_path, baseline)
        path = str(tmp_path / "s.json")
        same = await run_command("snapshot compare", "--snapshot", path, "--target", baseline)
        other = await run_command("snapshot compare", "--snapshot", path, "--target", target)
        batch = await run_command(
            "batch-compare", "--snapshot", path, "--target", target, "--dataset", dataset(tmp_path, 4)
        )
    assert (same.exit, same.data["totals"].equal) == (Exit.PASS, 4)
    assert [each.status for each in other.data["samples"]] == ["equal", "real", "tie", "equal"]
    assert other.exit == batch.exit == Exit.DIFFERENT
    assert [each.status for each in batch.data["samples"]] == ["equal", "real", "tie", "equal"]


async def test_other_sampling_or_other_prompts_are_mistakes(tmp_path):
    async with pair({}) as (baseline, _):
        await captured(tmp_path, baseline)
        path = str(tmp_path / "s.json")
        with pytest.raises(Mistake, match="--max-tokens 3: the snapshot was captured with 64"):
            await run_command("snapshot compare", "--snapshot", path, "--target", baseline, "--max-tokens", "3")
        other = tmp_path / "other.jsonl"
        for line, told in (('{"id": "s1", "prompt": "?"}', "'s1' asks something else"), ('{"prompt": "?"}', "1 of 1")):
            other.write_text(line, encoding="utf-8")
            with pytest.raises(Mistake, match=told):
                await run_command(
                    "batch-compare", "--snapshot", path, "--target", baseline, "--dataset", str(other)
                )  # fmt: skip


async def test_answers_that_fail_are_kept_as_errors_and_compared_as_errors(tmp_path):
    async with faulty_engine("status") as url, scripted_engine(answering({}, is_target=False)) as target:
        result = await run_command(
            "snapshot capture", "--baseline", url, "--dataset", dataset(tmp_path, 20), "--output",
            str(tmp_path / "s.json"), "--noise-floor", "0", "--retries", "0",
        )  # fmt: skip
        assert (result.exit, len(result.data["errors"])) == (Exit.INFRASTRUCTURE, 2)
        told = await run_command("snapshot compare", "--snapshot", str(tmp_path / "s.json"), "--target", target)
    assert told.exit == Exit.INFRASTRUCTURE
    failed = [each for each in told.data["samples"] if each.status == "error"]
    assert [(each.failed, each.error_reason) for each in failed] == [("baseline", "status_500")] * 2


def published(tmp_path, names):
    """As the published tool writes it: texts, and chat content entries by token text."""
    rest = {"token": "z", "logprob": -2}
    entries = [
        {"token": name, "logprob": -0.5, "top_logprobs": [{"token": name, "logprob": -0.5}, rest]} for name in names
    ]
    told = {
        "captured_at": "2026-01-01T00:00:00+00:00", "endpoint_url": "http://old:8000", "model": "m",
        "samples": [{"sample_id": "0", "prompt": "hi", "output": "".join(names), "logprobs": entries}],
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(told), encoding="utf-8")
    return str(tmp_path / "p.json")


@pytest.mark.parametrize(("names", "position"), [((" a", " b", " c"), None), ((" a", " X", " c"), 1)])
async def test_a_published_snapshot_is_compared_by_the_names_of_tokens(tmp_path, names, position):
    def by_name(body):
        assert body["return_token_ids"] is False
        content = [{"token": name, "logprob": -0.5, "top_logprobs": []} for name in (" a", " b", " c")]
        message = {"role": "assistant", "content": " a b c"}
        return {"choices": [{"message": message, "logprobs": {"content": content}, "finish_reason": "stop"}]}

    async with scripted_engine(by_name) as target:
        path = published(tmp_path, names)
        result = await run_command("snapshot compare", "--snapshot", path, "--target", target)
    sample = result.data["samples"][0]
    assert (sample.unit, sample.first_divergence) == ("tokens", position)
    assert result.exit == (Exit.PASS if position is None else Exit.INCONCLUSIVE)


async def test_show_describes_both_kinds(tmp_path):
    ours = await run_command("snapshot show", "--snapshot", published(tmp_path, (" a",)))
    assert (ours.exit, ours.data["samples"], ours.data["imported_from"]) == (Exit.PASS, 1, "xpyd-acc snapshot")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("[]", "must be an object with samples"),
        ('{"kind": "batch-compare", "samples": []}', "kind is 'batch-compare'"),
        ('{"kind": "snapshot", "version": 99, "samples": []}', "version is 99"),
        ('{"kind": "snapshot", "version": 2, "samples": [{"sample_id": 3}]}', "not a snapshot"),
        ('{"kind": "snapshot", "version": 2, "samples": []}', "no sample in it"),
        ('{"kind": "snapshot", "version": 2, "samples": [{"sample_id": "a"}, {"sample_id": "a"}]}', "there twice"),
        ("{", "not a snapshot"),
    ],
)  # fmt: skip
def test_what_is_no_snapshot_is_a_mistake(tmp_path, body, told):
    (tmp_path / "s.json").write_text(body, encoding="utf-8")
    with pytest.raises(Mistake) as raised:
        read_snapshot(tmp_path / "s.json")
    assert told in str(raised.value)
