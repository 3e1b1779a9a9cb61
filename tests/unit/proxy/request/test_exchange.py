"""The life of one request, played through without a socket: the rules of its module, by name."""

import pytest
from tests.support.builders import aggregated_plan, direct_plan, pd_plan
from tests.support.playbook import (
    FIRST_BYTE,
    GONE,
    LEG_REFUSED,
    Playbook,
    broken,
    ended,
    passed,
    planned,
    refused,
    unreachable,
)

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.request.signals import MakePlan

NIXL, P2P, SHARED = planned(pd_plan()), planned(pd_plan(handoff="p2p_nccl")), planned(pd_plan(handoff="none"))
DIRECT, AGGREGATED = planned(direct_plan()), planned(aggregated_plan())
OPEN_PREFILL = ("OpenLeg(prefill)", "ArmDeadline(prefill)")
OPEN_DECODE = ("OpenLeg(decode)", "ArmDeadline(first_token)")
OPEN_RELEASE = ("OpenLeg(release)", "ArmDeadline(release)")
OPEN_APART = ("OpenLeg(release, apart)", "ArmDeadline(release)")
START = ("StartResponse", "ArmDeadline(idle)")


def prefilling(plan=NIXL, *, retries=1):
    return Playbook(retries=retries).on(plan, *OPEN_PREFILL)


def decoding(plan=NIXL, *, kv=True, retries=1):
    """The decode leg of a split request is open; by default the prefill answer handed KV over."""
    return prefilling(plan, retries=retries).on(ended(200, kv=kv), *OPEN_DECODE)


def direct(plan=DIRECT, *, retries=1):
    return Playbook(retries=retries).on(plan, *OPEN_DECODE)


# The main line


def test_a_split_request_is_prefilled_then_decoded_and_streamed():
    decoding().on(FIRST_BYTE, *START).on(ended(200), "EndResponse", "Release").ends()


def test_a_whole_answer_is_relayed_once_the_decode_leg_ended():
    decoding().on(ended(200), "RelayAnswer(200)", "Release").ends()


@pytest.mark.parametrize("plan", [DIRECT, AGGREGATED], ids=["direct", "aggregated"])
def test_a_request_without_prefill_engine_opens_one_leg_only(plan):
    direct(plan).on(FIRST_BYTE, *START).on(ended(200), "EndResponse", "Release").ends()


def test_a_prefill_answer_without_handoff_still_goes_to_the_decode_engine():
    decoding(kv=False).on(ended(200), "RelayAnswer(200)", "Release").ends()


def test_rule_1_nothing_reaches_the_client_before_the_decode_legs_first_byte():
    quiet = prefilling()
    quiet.on(FIRST_BYTE)  # a prefill leg has none; one that comes is no reason to answer
    quiet.on(ended(200, kv=True), *OPEN_DECODE)


# P1: the client leaves while the prefill engine holds KV for the decode engine


def test_p1_a_client_that_leaves_before_first_byte_keeps_the_decode_leg_until_it_took_the_kv():
    decoding().on(GONE, "ArmDeadline(release)").on(FIRST_BYTE, "AbortLeg", "Release").ends()


def test_p1_a_decode_engine_that_takes_long_is_aborted_after_the_grace():
    decoding().on(GONE, "ArmDeadline(release)").on(passed("release"), "AbortLeg", "Release").ends()


def test_p1_a_decode_leg_that_ends_by_itself_releases():
    decoding().on(GONE, "ArmDeadline(release)").on(ended(200), "Release").ends()


def test_p1_a_kept_decode_leg_that_never_went_out_is_noted_as_stranded():
    decoding().on(GONE, "ArmDeadline(release)").on(unreachable(), "NoteStranded", "Release").ends()


def test_p1_a_refused_decode_leg_after_the_client_left_is_noted_as_stranded():
    decoding().on(GONE, "ArmDeadline(release)").on(ended(400), "NoteStranded", "Release").ends()


def test_p1_a_decode_leg_without_kv_is_cut_at_once_when_the_client_leaves():
    direct().on(GONE, "AbortLeg", "Release").ends()
    decoding(kv=False).on(GONE, "AbortLeg", "Release").ends()
    decoding(SHARED).on(GONE, "AbortLeg", "Release").ends()


def test_p1_a_4xx_of_the_decode_leg_is_answered_and_its_kv_given_back():
    decoding().on(ended(400), "RelayAnswer(400)", *OPEN_APART).on(ended(200), "Release").ends()


def test_p1_a_4xx_of_the_release_leg_too_is_noted_as_stranded():
    decoding().on(ended(400), "RelayAnswer(400)", *OPEN_APART).on(ended(400), "NoteStranded", "Release").ends()


def test_p1_a_client_that_leaves_during_the_release_changes_nothing():
    play = decoding().on(ended(404), "RelayAnswer(404)", *OPEN_APART).on(GONE)
    play.on(broken(), "Release").ends()


def test_p1_kv_that_found_no_other_decode_engine_is_noted_as_stranded():
    play = decoding().on(unreachable(), "Release", "MakePlan(decode_failed unreachable=d1:8000 keep=p1:8000)")
    play.on(refused(), "Respond(503 engine_unreachable)", "NoteStranded").ends()


def test_p1_kv_without_a_try_left_is_noted_as_stranded():
    play = decoding(retries=0)
    play.on(unreachable(), "Respond(503 engine_unreachable)", "NoteStranded", "Release").ends()


def test_p1_kv_bound_to_an_unreachable_decode_engine_is_noted_as_stranded_before_the_next_plan():
    """P2pNccl pushed its layers to the decode engine that cannot be reached: no other engine can use them."""
    play = decoding(P2P)
    play.on(unreachable(), "NoteStranded", "Release", "MakePlan(decode_failed unreachable=d1:8000)")
    play.on(planned(pd_plan(d="d2", handoff="p2p_nccl")), *OPEN_PREFILL)


def test_p1_kv_that_waits_is_noted_as_stranded_when_the_next_plan_does_without_it():
    play = decoding().on(unreachable(), "Release", "MakePlan(decode_failed unreachable=d1:8000 keep=p1:8000)")
    play.on(AGGREGATED, "NoteStranded", *OPEN_DECODE).on(GONE, "AbortLeg", "Release").ends()


# P4: what may be cut depends on the protocol and the phase


def test_p4_a_nixl_prefill_leg_is_cut_when_the_client_leaves():
    prefilling().on(GONE, "AbortLeg", "Release").ends()


def test_p4_a_p2p_nccl_prefill_leg_finishes_and_a_leg_of_one_token_takes_the_kv():
    prefilling(P2P).on(GONE).on(ended(200, kv=True), *OPEN_RELEASE).on(ended(200), "Release").ends()


def test_p4_a_p2p_nccl_prefill_leg_that_fails_after_the_client_left_is_not_tried_again():
    prefilling(P2P).on(GONE).on(broken(), "Release").ends()
    prefilling(P2P).on(GONE).on(ended(500), "Release").ends()
    prefilling(P2P).on(GONE).on(ended(400), "Release").ends()


def test_p4_a_p2p_nccl_prefill_leg_that_handed_nothing_over_needs_no_release_leg():
    prefilling(P2P).on(GONE).on(ended(200), "Release").ends()


def test_p4_a_prefill_leg_that_hangs_after_the_client_left_ends_at_its_deadline():
    prefilling(P2P).on(GONE).on(passed("prefill"), "AbortLeg", "Release").ends()


def test_p4_a_stream_is_cut_when_the_client_leaves():
    decoding().on(FIRST_BYTE, *START).on(GONE, "AbortLeg", "Release").ends()


# P7: in-flight counts and waiting


def test_p7_a_silent_prefill_engine_is_a_504_and_released():
    prefilling().on(passed("prefill"), "AbortLeg", "Respond(504 engine_timeout)", "Release").ends()


def test_p7_a_silent_decode_engine_is_a_504_and_released():
    decoding().on(passed("first_token"), "AbortLeg", "Respond(504 engine_timeout)", "Release").ends()


def test_p7_a_stream_that_stops_is_broken_off_and_released():
    play = direct().on(FIRST_BYTE, *START)
    play.on(passed("idle"), "AbortLeg", "BreakResponse(504 engine_timeout)", "Release").ends()


@pytest.mark.parametrize("late", ["prefill", "idle", "release"])
def test_p7_a_timer_of_another_phase_is_ignored(late):
    decoding().on(passed(late)).on(ended(200), "RelayAnswer(200)", "Release").ends()


@pytest.mark.parametrize("late", ["prefill", "first_token", "release"])
def test_p7_a_late_timer_does_not_break_a_stream(late):
    direct().on(FIRST_BYTE, *START).on(passed(late)).on(ended(200), "EndResponse", "Release").ends()


@pytest.mark.parametrize("late", ["first_token", "idle", "release"])
def test_p7_a_late_timer_does_not_cut_a_prefill_leg(late):
    prefilling().on(passed(late)).on(ended(200, kv=True), *OPEN_DECODE)


@pytest.mark.parametrize("late", ["prefill", "first_token", "idle"])
def test_p7_a_late_timer_does_not_cut_a_release(late):
    decoding().on(GONE, "ArmDeadline(release)").on(passed(late)).on(ended(200), "Release").ends()


# P8: every attempt is its own


def test_p8_each_attempt_releases_its_plan_before_the_next_is_made():
    play = prefilling().on(ended(500), "Release", "MakePlan(prefill_failed failed=p1:8000)")
    play.on(planned(pd_plan("p2")), *OPEN_PREFILL).on(ended(200, kv=True), *OPEN_DECODE)
    play.on(ended(200), "RelayAnswer(200)", "Release").ends()


# P9: a failure before the first byte never becomes a 200


def test_p9_a_failed_decode_leg_is_tried_elsewhere_from_the_start():
    """Its KV may be consumed (vllm#52234): the next try prefills again."""
    play = decoding().on(ended(500), "Release", "MakePlan(decode_failed failed=d1:8000)")
    play.on(planned(pd_plan(d="d2")), *OPEN_PREFILL)


def test_p9_a_failed_decode_leg_without_tries_left_gives_the_engines_status():
    decoding(retries=0).on(ended(500), "RelayAnswer(500)", "Release").ends()
    decoding(retries=0).on(broken(), "Respond(502 engine_error)", "Release").ends()


def test_p9_a_second_failure_is_what_the_client_hears():
    play = direct().on(broken(), "Release", "MakePlan(decode_failed failed=d1:8000)")
    play.on(planned(direct_plan("d2")), *OPEN_DECODE).on(ended(503), "RelayAnswer(503)", "Release").ends()


def test_p9_rule_5_there_is_no_retry_after_the_first_byte():
    play = decoding(retries=5).on(FIRST_BYTE, *START)
    play.on(broken(), "BreakResponse(502 engine_error)", "Release").ends()


@pytest.mark.parametrize("retries", [None, 3])
def test_retries_go_on_until_the_planner_finds_no_further_engine(retries):
    play = direct(retries=retries).on(broken(), "Release", "MakePlan(decode_failed failed=d1:8000)")
    play.on(planned(direct_plan("d2")), *OPEN_DECODE)
    play.on(ended(500), "Release", "MakePlan(decode_failed failed=d1:8000+d2:8000)")
    play.on(planned(direct_plan("d3")), *OPEN_DECODE)
    play.on(ended(503), "Release", "MakePlan(decode_failed failed=d1:8000+d2:8000+d3:8000)")
    play.on(refused(), "RelayAnswer(503)").ends()


def test_only_the_first_retry_may_repeat_an_engine_and_what_is_free_may_always():
    play = Playbook(retries=None).on(NIXL, *OPEN_PREFILL).on(ended(200, kv=True), *OPEN_DECODE)
    seen = []
    for event in (broken(by_us=True), broken(), ended(500)):
        (wanted,) = [each for each in play.exchange.handle(event) if isinstance(each, MakePlan)]
        seen.append((wanted.may_repeat, wanted.is_free))
        play.exchange.handle(planned(direct_plan()))
    assert seen == [(True, True), (True, False), (False, False)]


def test_pairs_that_failed_together_are_told_to_the_planner():
    exchange = decoding(retries=None).exchange
    (wanted,) = [each for each in exchange.handle(broken()) if isinstance(each, MakePlan)]
    assert wanted.tried_pairs == {("p1:8000", "d1:8000")}


# What the proxy asked for beside the client's wishes


def test_a_request_that_was_refused_for_the_proxys_own_wishes_begins_anew_and_its_kv_is_not_used_again():
    play = decoding(retries=0).on(LEG_REFUSED, "NoteStranded", "Release", "MakePlan(decode_failed)")
    play.on(NIXL, *OPEN_PREFILL).on(ended(200, kv=True), *OPEN_DECODE)
    play.on(FIRST_BYTE, *START).on(ended(), "EndResponse", "Release").ends()
    direct(retries=0).on(LEG_REFUSED, "Release", "MakePlan(decode_failed)").on(DIRECT, *OPEN_DECODE)


def test_an_engine_that_refuses_without_them_too_is_believed():
    play = direct(retries=5).on(LEG_REFUSED, "Release", "MakePlan(decode_failed)")
    play.on(DIRECT, *OPEN_DECODE).on(LEG_REFUSED, "RelayAnswer(400)", "Release").ends()
    play = decoding(retries=5).on(LEG_REFUSED, "NoteStranded", "Release", "MakePlan(decode_failed)")
    play.on(NIXL, *OPEN_PREFILL).on(ended(200, kv=True), *OPEN_DECODE)
    play.on(LEG_REFUSED, "RelayAnswer(400)", *OPEN_APART).on(ended(), "Release").ends()


def test_kv_of_a_refused_leg_is_noted_as_stranded_when_the_client_left_meanwhile():
    decoding().on(GONE, "ArmDeadline(release)").on(LEG_REFUSED, "NoteStranded", "Release").ends()


def test_what_broke_by_the_proxys_own_wishes_costs_the_client_no_try():
    play = direct(retries=1).on(broken(by_us=True), "Release", "MakePlan(decode_failed failed=d1:8000)")
    play.on(DIRECT, *OPEN_DECODE).on(broken(), "Release", "MakePlan(decode_failed failed=d1:8000)")
    play.on(DIRECT, *OPEN_DECODE).on(broken(by_us=True), "Respond(502 engine_error)", "Release").ends()


# P10, P11: the client's own mistakes


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 422, 429])
def test_p10_a_4xx_is_relayed_as_it_is_and_never_tried_again(status):
    prefilling(retries=5).on(ended(status), f"RelayAnswer({status})", "Release").ends()
    direct(retries=5).on(ended(status), f"RelayAnswer({status})", "Release").ends()


def test_p11_a_500_about_the_prompts_length_is_a_400_and_no_engine_is_blamed():
    prefilling().on(ended(500, is_client_fault=True), "RelayAnswer(400)", "Release").ends()
    direct().on(ended(500, is_client_fault=True), "RelayAnswer(400)", "Release").ends()
    decoding().on(ended(500, is_client_fault=True), "RelayAnswer(400)", *OPEN_APART)


# P12, P15, P16: engines that are not there


def test_p12_an_engine_that_is_not_ready_keeps_its_503():
    prefilling(retries=0).on(ended(503), "RelayAnswer(503)", "Release").ends()


def test_p12_an_unreachable_engine_is_a_503_with_its_reason():
    prefilling(retries=0).on(unreachable(), "Respond(503 engine_unreachable)", "Release").ends()


def test_p12_an_unreachable_engine_is_not_asked_again():
    prefilling().on(unreachable(), "Release", "MakePlan(prefill_failed unreachable=p1:8000)")


def test_p15_a_request_without_any_engine_is_refused():
    Playbook().on(refused(DecisionReason.NO_PREFILL_ENGINE), "Respond(503 no_prefill_engine)")


def test_p15_a_failed_answer_is_relayed_when_no_further_engine_is_found():
    play = prefilling().on(ended(502), "Release", "MakePlan(prefill_failed failed=p1:8000)")
    play.on(refused(), "RelayAnswer(502)").ends()


def test_p16_a_split_request_falls_back_to_an_aggregated_engine():
    play = prefilling().on(unreachable(), "Release", "MakePlan(prefill_failed unreachable=p1:8000)")
    play.on(AGGREGATED, *OPEN_DECODE).on(ended(200), "RelayAnswer(200)", "Release").ends()


def test_failures_and_unreachable_engines_add_up_over_tries():
    play = prefilling(retries=2).on(ended(500), "Release", "MakePlan(prefill_failed failed=p1:8000)")
    play.on(planned(pd_plan("p2")), *OPEN_PREFILL)
    play.on(unreachable(), "Release", "MakePlan(prefill_failed failed=p1:8000 unreachable=p2:8000)")
    play.on(planned(pd_plan("p3")), *OPEN_PREFILL).on(ended(500), "RelayAnswer(500)", "Release").ends()


# P13, P14: how an answer ends


def test_p13_a_stream_that_dies_is_broken_off_not_ended():
    direct().on(FIRST_BYTE, *START).on(broken(), "BreakResponse(502 engine_error)", "Release").ends()


def test_p14_a_whole_answer_is_never_started_as_a_stream():
    direct().on(ended(200), "RelayAnswer(200)", "Release").ends()


# Rule 4: KV that no decode leg touched moves on; what one may have consumed does not


def test_rule_4_untouched_kv_goes_to_another_decode_engine_without_a_second_prefill():
    play = decoding().on(unreachable(), "Release", "MakePlan(decode_failed unreachable=d1:8000 keep=p1:8000)")
    play.on(planned(pd_plan(d="d2")), *OPEN_DECODE).on(FIRST_BYTE, *START).on(ended(), "EndResponse", "Release").ends()


def test_rule_4_kv_of_a_decode_leg_that_was_sent_is_never_used_again():
    decoding().on(broken(), "Release", "MakePlan(decode_failed failed=d1:8000)")


def test_rule_4_a_shared_store_holds_nothing_for_a_peer():
    decoding(SHARED).on(unreachable(), "Release", "MakePlan(decode_failed unreachable=d1:8000)")
