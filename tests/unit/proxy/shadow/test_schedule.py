"""What is checked or measured next."""

import random

import pytest
from tests.unit.proxy.shadow.test_seeds import seed

from ppd_proxy.shadow.sample import Sample
from ppd_proxy.shadow.schedule import NOISE_PAUSE_S, Schedule
from ppd_proxy.shadow.seeds import NoiseRequest, Seeds

KEY, SAMPLE = seed(20, temperature=0)


def scheduled(*, waiting=0, checked=0, share=1.0):
    """A schedule in which so many samples wait, and so many were checked."""
    schedule = Schedule(Seeds(random.Random(1).random), queue=10)
    for _ in range(waiting):
        schedule.add(SAMPLE)
    for _ in range(checked):
        schedule.checked(KEY, SAMPLE, share)
    return schedule


def kinds(schedule, jobs, *, worker=0, now=0.0, suspicious=None):
    taken = (schedule.take(worker, turn, now=now, suspicious=suspicious) for turn in range(1, jobs + 1))
    return [{Sample: "sample", NoiseRequest: "noise", type(None): None}[type(job)] for job in taken]


def test_nothing_to_do_is_none():
    assert kinds(scheduled(), 3) == [None, None, None]


def test_every_second_job_is_noise_while_some_is_due():
    assert kinds(scheduled(waiting=3, checked=2), 5) == ["sample", "noise", "sample", "noise", "sample"]


def test_noise_that_is_due_is_every_job_while_nothing_else_waits():
    assert kinds(scheduled(checked=2), 3) == ["noise", "noise", None]


def test_a_share_of_a_measurement_is_due_for_each_check():
    assert kinds(scheduled(checked=4, share=0.5), 3) == ["noise", "noise", None]


def test_the_queue_is_full_when_as_many_wait_as_may():
    assert not scheduled(waiting=9).is_full
    assert scheduled(waiting=10).is_full


def test_a_suspicious_key_is_measured_first_on_the_prompts_in_doubt():
    schedule = scheduled(checked=1)
    _, doubted = seed(18, temperature=0)
    schedule.doubt(KEY, doubted)
    job = schedule.take(0, 2, now=0.0, suspicious=KEY)
    assert len(job.body["prompt"]) == 18


def test_what_was_ordered_is_measured_and_then_no_more():
    schedule = scheduled(checked=1, share=0.0)
    assert schedule.calibrate(3) == {KEY.label: 3}
    assert schedule.calibrating == {KEY.label: 3}
    assert kinds(schedule, 4) == ["noise"] * 3 + [None]
    assert schedule.calibrating == {}


@pytest.mark.parametrize(("ordered", "expected"), [(49, "noise"), (50, None), (99, None), (100, "noise")])
def test_calibration_alternates_between_one_worker_and_all(ordered, expected):
    schedule = scheduled(checked=1, share=0.0)
    schedule.calibrate(ordered)
    assert kinds(schedule, 1, worker=1) == [expected]
    assert kinds(schedule, 1, worker=0) == ["noise"]


def test_after_a_failed_measurement_there_is_a_pause_and_it_is_made_up_for():
    schedule = scheduled(waiting=1, checked=1, share=0.0)
    schedule.calibrate(1)
    noise = schedule.take(0, 2, now=100.0, suspicious=None)
    schedule.noise_failed(noise, 100.0)
    assert kinds(schedule, 2, now=100.0 + NOISE_PAUSE_S - 0.1, suspicious=KEY) == ["sample", None]
    assert kinds(schedule, 1, now=100.0 + NOISE_PAUSE_S) == ["noise"]
