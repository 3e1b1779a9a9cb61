"""Retries over all requests: a share of the last 10 s and some more, never a second load."""

from ppd_core.policy.retry_budget import PER_SECOND, SHARE, WINDOW_S, RetryBudget

FREE = PER_SECOND * WINDOW_S


def taken(budget, now, asked):
    return sum(budget.take(now) for _ in range(asked))


def test_a_proxy_with_few_requests_can_retry_every_one_of_them():
    assert taken(RetryBudget(), 1000.0, 10 * FREE) == FREE


def test_a_fifth_of_the_requests_may_be_tried_again_beyond_that():
    budget = RetryBudget()
    for number in range(5000):
        budget.note_request(1000.0 + number / 1000)
    assert taken(budget, 1005.0, 5000) == FREE + SHARE * 5000


def test_retries_come_back_when_the_old_ones_are_ten_seconds_old():
    budget = RetryBudget()
    assert taken(budget, 1000.0, 40) == 40
    assert taken(budget, 1005.0, FREE) == FREE - 40
    assert taken(budget, 1009.9, 10) == 0
    assert taken(budget, 1010.0, FREE) == 40
    assert taken(budget, 1015.0, FREE) == FREE - 40


def test_requests_older_than_ten_seconds_allow_nothing():
    budget = RetryBudget()
    for _ in range(1000):
        budget.note_request(1000.0)
    assert taken(budget, 1020.0, 1000) == FREE


def test_a_long_rest_forgets_everything():
    budget = RetryBudget()
    taken(budget, 1000.0, FREE)
    budget.note_request(1_000_000.0)
    assert taken(budget, 1_000_000.0, 10 * FREE) == FREE + 1
