"""Rows for tests of the journal, and ways to look at them."""

import math
import sqlite3

from ppd_accuracy.verdicts.rows import SampleRow

NAN = math.nan


def row(number=0, **fields):
    known = {
        "sample_id": f"r{number}",
        "at": 1000.0 + number,
        "model": "m",
        "route": "pd",
        "pair": "10.0.0.1:8100>10.0.0.2:8200",
        "filled_by": ("10.0.0.1:8100",),
        "turn": 2,
        "reason": "mode_pd",
        "method": "score",
        "outcome": "same",
        "category": "within",
        "prompt_tokens": 3,
        "answer_tokens": 2,
        "prompt_token_ids": [1, 2, 3],
        "token_ids": [4, 4_000_000_000],
        "candidate_logprobs": [-0.5, NAN],
        "baseline_logprobs": [-0.25, -math.inf],
        "ranks": [1, None],
        "margins": [0.125, None],
        "max_delta": 0.25,
        "mean_delta": 0.1,
        "threshold": 0.3,
        "noise_samples": 12,
        "finish_reason": "stop",
        "replay": {"token_ids": [4, 5], "logprobs": [-0.5, NAN], "text": "SECRET", "finish_reason": "stop", "n": 2},
        "timings": {"score": 12.5},
        "transfer": {"bytes": 100},
        "spec": {"drafts": 3},
        "body": b'{"messages":"SECRET"}',
        "text": "SECRET",
        "error": None,
    }
    return SampleRow(**known | fields)


def equal(one, other):
    """Equal, NaN equal to itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other or (one != one and other != other)


def directly(path, query):
    """What another program sees in the file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
