"""Decoding token by token: where an answer ends, what of its text is held back, and how a prompt is scored."""

import pytest

from ppd_sim.model.body import Served, read
from ppd_sim.model.model import Model, ModelConfig, TokenHistory
from ppd_sim.model.sequence import Decoding, score_prompt, with_top
from ppd_sim.model.tokens import EOS_ID, Tokenizer

LIMITS = Served(model_name="m", adapters=("tuned",), max_model_len=1000, default_max_tokens=None, tokens_per_image=16)
TOKENIZER = Tokenizer()
MODEL = Model(ModelConfig(mean_answer_tokens=40))


def decoding(**fields):
    body = {"prompt": "Tell me a story", "temperature": 0, "max_tokens": 30, **fields}
    return Decoding(MODEL, TOKENIZER, read("completions", body, TOKENIZER, LIMITS), prompt=0, choice=0, seed=1)


def steps(**fields):
    """All steps up to the one with a finish reason."""
    state = decoding(**fields)
    done = [state.step()]
    while done[-1].finish_reason is None:
        done.append(state.step())
    return done


def text(done):
    return "".join(step.text for step in done)


def ids(done):
    return [token_id for step in done for token_id in step.token_ids]


def test_an_answer_ends_at_its_length_and_its_text_is_its_tokens():
    done = steps(max_tokens=20)
    assert (len(done), done[-1].finish_reason) == (20, "length")
    assert text(done) == TOKENIZER.decode(ids(done))
    assert ids(done) == ids(steps(max_tokens=20))


def test_an_answer_of_no_tokens_is_one_empty_step():
    [only] = steps(max_tokens=0, echo=True)
    assert (only.token_ids, only.text, only.finish_reason) == ([], "", "length")


def test_an_answer_ends_itself_unless_that_is_ignored():
    done = steps(max_tokens=900)
    assert (done[-1].finish_reason, done[-1].token_ids, done[-1].text) == ("stop", [EOS_ID], "")
    assert len(steps(max_tokens=900, ignore_eos=True)) > len(done)
    assert len(steps(max_tokens=900, min_tokens=len(done))) > len(done)


def test_a_text_that_stops_is_cut_out_or_kept():
    whole = text(steps())
    stop = whole[10:14]
    cut, kept = steps(stop=[stop]), steps(stop=[stop], include_stop_str_in_output=True)
    assert text(cut) == whole[: whole.index(stop)]
    assert text(kept) == text(cut) + stop
    assert (cut[-1].finish_reason, cut[-1].stop_reason) == ("stop", stop)


def test_what_may_be_the_beginning_of_a_stop_is_held_back_and_nothing_is_lost():
    done = steps(stop=["never said"])
    whole = text(steps())
    assert text(done) == whole
    for count in range(1, len(done)):
        assert whole.startswith(text(done[:count]))
        assert len(text(done[:count])) <= max(0, len(TOKENIZER.decode(ids(done[:count]))) - 9)


def test_a_token_that_stops_is_named():
    third = ids(steps())[2]
    done = steps(stop_token_ids=[third])
    assert (done[-1].finish_reason, done[-1].stop_reason) == ("stop", third)
    assert ids(done)[-1] == third


def test_logprobs_have_the_sampled_token_first():
    for step in steps(logprobs=3, max_tokens=5):
        [scores] = step.scores
        assert [scores[0].token_id] == step.token_ids
        assert len({score.token_id for score in scores}) == len(scores) == 3


def test_choices_differ_and_a_corrupted_cache_goes_on_otherwise():
    state, corrupted = decoding(), decoding()
    corrupted.corrupt()
    assert [state.step().token_ids for _ in range(9)] != [corrupted.step().token_ids for _ in range(9)]


@pytest.mark.parametrize(("top", "count"), [(0, 1), (1, 2), (2, 2), (-1, 3)])
def test_the_sampled_token_is_not_told_twice(top, count):
    ranked = MODEL.decode_scores(TokenHistory(MODEL.weights_seed(), [1, 2, 3]).position())[:3]
    assert [score.token_id for score in with_top(ranked[1], ranked, top)][:1] == [ranked[1].token_id]
    assert len(with_top(ranked[1], ranked, top)) == count


def test_a_prompt_that_was_answered_scores_as_it_was_decoded():
    prompt = TOKENIZER.encode("Tell me a story")
    answer = steps(logprobs=0, max_tokens=5)
    scored = score_prompt(MODEL, None, [*prompt, *ids(answer)], 2)
    assert scored[0] is None
    assert [each[0].token_id for each in scored[1:]] == [*prompt[1:], *ids(answer)]
    assert [each[0].logprob for each in scored[len(prompt) :]] == [step.scores[0][0].logprob for step in answer]


def test_an_adapter_scores_otherwise():
    prompt = TOKENIZER.encode("Tell me a story")
    assert score_prompt(MODEL, None, prompt, 0) != score_prompt(MODEL, "tuned", prompt, 0)
