import math

import pytest

from ppd_sim.model.model import Model, ModelConfig, SamplingRules, TokenHistory, draw
from ppd_sim.model.tokens import EOS_ID, Tokenizer

PROMPT = Tokenizer().encode("<|user|>\nTell me a story<|end|>\n<|assistant|>\n")


def greedy(model, prompt, count):
    history, answer = TokenHistory(model.weights_seed(), prompt), []
    for _ in range(count):
        answer.append(model.top_token(history.position()))
        history.append(answer[-1])
    return answer


def positions(model, count):
    history = TokenHistory(model.weights_seed(), PROMPT)
    for _ in range(count):
        yield history.position()
        history.append(model.top_token(history.position()))


def test_the_same_prompt_gives_the_same_answer_and_another_prompt_another():
    assert greedy(Model(ModelConfig()), PROMPT, 50) == greedy(Model(ModelConfig()), PROMPT, 50)
    assert greedy(Model(ModelConfig()), PROMPT, 50) != greedy(Model(ModelConfig()), PROMPT[1:], 50)
    assert greedy(Model(ModelConfig()), PROMPT, 50) != greedy(Model(ModelConfig(seed=1)), PROMPT, 50)


def test_an_answer_does_not_depend_on_where_the_prompt_ends():
    model = Model(ModelConfig())
    answer = greedy(model, PROMPT, 50)
    assert greedy(model, PROMPT + answer[:20], 30) == answer[20:]


def test_generated_text_encodes_back_to_the_generated_tokens():
    tokenizer = Tokenizer()
    for seed in range(20):
        answer = greedy(Model(ModelConfig(seed=seed)), PROMPT, 400)
        answer = answer[: answer.index(EOS_ID)] if EOS_ID in answer else answer
        assert tokenizer.encode(tokenizer.decode(answer)) == answer


def test_answers_end_now_and_then():
    lengths = []
    for seed in range(40):
        answer = greedy(Model(ModelConfig(seed=seed, mean_answer_tokens=50)), PROMPT, 1000)
        lengths.append(answer.index(EOS_ID))
    assert 25 < sum(lengths) / len(lengths) < 100


def test_the_quick_greedy_choice_is_the_most_likely_token():
    model = Model(ModelConfig())
    for position in positions(model, 300):
        scores = model.decode_scores(position)
        assert model.top_token(position) == scores[0].token_id
        assert len({score.token_id for score in scores}) == len(scores)
        assert math.isclose(sum(math.exp(score.logprob) for score in scores), 1.0)


def test_a_banned_token_is_never_chosen():
    model = Model(ModelConfig())
    for position in positions(model, 50):
        top = model.top_token(position)
        assert model.top_token(position, (top,)) != top


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_near_ties_come_as_often_as_configured(share):
    model = Model(ModelConfig(near_tie_share=share, near_tie_nats=0.02))
    gaps = [model.decode_scores(position)[:2] for position in positions(model, 400)]
    ties = sum(first.logprob - second.logprob <= 0.02 for first, second in gaps) / 400
    assert abs(ties - share) < 0.1


def test_prefill_noise_moves_logprobs_a_little_and_repeatably():
    model = Model(ModelConfig(prefill_noise_nats=0.03))
    for position in positions(model, 50):
        decoded = {score.token_id: score.logprob for score in model.decode_scores(position)}
        prefilled = {score.token_id: score.logprob for score in model.prefill_scores(position)}
        assert prefilled == {score.token_id: score.logprob for score in model.prefill_scores(position)}
        assert 0 < max(abs(prefilled[token_id] - decoded[token_id]) for token_id in decoded) < 0.07


def test_noise_between_engines_changes_answers_at_near_ties_only():
    quiet = ModelConfig(near_tie_share=0.2, near_tie_nats=0.02)
    loud = ModelConfig(near_tie_share=0.2, near_tie_nats=0.02, engine_noise_nats=0.02, noise_seed=7)
    changed = 0
    for position in positions(Model(quiet), 300):
        first, second = Model(quiet).decode_scores(position)[:2]
        if Model(loud).top_token(position) != first.token_id:
            changed += 1
            assert first.logprob - second.logprob <= 0.04
    assert changed > 0


def test_sampling_is_repeatable_by_seed_and_differs_between_choices():
    model = Model(ModelConfig(near_tie_share=1.0))
    scores = [model.decode_scores(position) for position in positions(model, 60)]

    def sampled(**how):
        sampling = SamplingRules(temperature=1.0, **how)
        return [draw(step, sampling, place).token_id for place, step in enumerate(scores)]

    assert sampled(seed=1) == sampled(seed=1)
    assert sampled(seed=1) != sampled(seed=2)
    assert sampled(seed=1, choice=0) != sampled(seed=1, choice=1)
    assert sampled(seed=1, top_k=1) == [step[0].token_id for step in scores]
    assert sampled(seed=1, top_p=1e-9) == [step[0].token_id for step in scores]
    assert draw(scores[0], SamplingRules(temperature=0.0), 0) == scores[0][0]
