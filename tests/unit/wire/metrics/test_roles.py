"""What an endpoint is by its metrics; whole pages are in acc/cli/engines/test_detect."""

import pytest

from ppd_wire.metrics.roles import signs_of

VLLM = {("vllm:num_requests_running", ""): 0.0}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ppd_engine_up", "ppd-proxy"), ("vllm_router_requests", "router"), ("vllm:healthy_pods_total", "router"),
        ("vllm:cache_config_info", None), ("sglang:token_usage", None),
    ],
)  # fmt: skip
def test_a_name_says_what_it_is(name, kind):
    [(_, said)] = signs_of({(name, ""): 0.0})
    assert said == kind


def test_a_program_that_nobody_knows_says_nothing():
    assert list(signs_of({("process_cpu_seconds_total", ""): 1.0})) == []


@pytest.mark.parametrize(
    ("name", "label", "kind"),
    [
        ("vllm:ppd_kv_transfers_total", "send", "prefill"),
        ("vllm:ppd_kv_transfers_total", "recv", "decode"),
        ("vllm:prompt_tokens_by_source_total", "external_kv_transfer", "decode"),
    ],
)
def test_kv_that_was_moved_says_which_way(name, label, kind):
    assert [said for _, said in signs_of({**VLLM, (name, label): 3.0})] == [None, kind]
    assert [said for _, said in signs_of({**VLLM, (name, label): 0.0})] == [None]


@pytest.mark.parametrize(
    ("finished", "generated", "says"), [(10, 10, [None, "prefill"]), (9, 9, [None]), (10, 11, [None])]
)
def test_one_token_for_each_of_many_requests_is_a_prefill_engine(finished, generated, says):
    totals = {("vllm:request_success_total", ""): finished, ("vllm:generation_tokens_total", ""): generated}
    assert [said for _, said in signs_of(totals)] == says
