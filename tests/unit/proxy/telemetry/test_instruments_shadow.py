from ppd_accuracy.verdicts.verdicts import VERDICTS
from ppd_proxy.telemetry.instruments_shadow import INSTRUMENTS, TOKEN_ACCURACY, VERDICT


def test_all_are_of_the_shadows_group():
    assert {instrument.group for instrument in INSTRUMENTS} == {"shadow"}


def test_every_verdict_is_named_to_people():
    assert all(f"`{verdict}`" in VERDICT.label_values["verdict"] for verdict in VERDICTS)


def test_an_answer_that_is_wholly_right_has_a_bucket_of_its_own():
    assert TOKEN_ACCURACY.buckets[-1] == 1
    assert TOKEN_ACCURACY.buckets[-2] < 1
