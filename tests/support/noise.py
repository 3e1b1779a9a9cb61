"""A noise floor that no engine measured: how far the simulated model's decoding and its prefilling are apart."""

from __future__ import annotations

from functools import cache

import numpy as np
from tests.support.cluster import Cluster

from ppd_accuracy.answers.scores import Scores, Statistics, summarize
from ppd_accuracy.verdicts.noise import key_of
from ppd_sim.model.model import Model, ModelConfig, TokenHistory

PROMPT_TOKENS, ANSWER_TOKENS = 20, 12


async def inject_floor(cluster: Cluster, samples: int) -> None:
    """Healthy samples of short greedy answers, like those that `POST /accuracy/calibrate` has the baseline make."""
    assert cluster.runtime.accuracy is not None
    key = key_of("", PROMPT_TOKENS, "greedy")  # requests of these tests name no model
    for number in range(samples):
        await cluster.runtime.accuracy.shadow.learn(key, _healthy(cluster.decode.config.model, number))


@cache
def _healthy(config: ModelConfig, number: int) -> Statistics:
    """Of a greedy answer to a prompt of that number, scored by the model itself."""
    model = Model(config)
    history = TokenHistory(model.weights_seed(), (number,) * PROMPT_TOKENS)
    candidate, baseline, margin, rank = [], [], [], []
    for _ in range(ANSWER_TOKENS):
        position = history.position()
        chosen = model.decode_scores(position)[0]
        ranked = model.prefill_scores(position)
        own = next(score for score in ranked if score.token_id == chosen.token_id)
        candidate.append(chosen.logprob)
        baseline.append(own.logprob)
        margin.append(ranked[0].logprob - own.logprob)
        rank.append(own.rank)
        history.append(chosen.token_id)
    return summarize(
        Scores(candidate=np.array(candidate), baseline=np.array(baseline), margin=np.array(margin), rank=np.array(rank))
    )
