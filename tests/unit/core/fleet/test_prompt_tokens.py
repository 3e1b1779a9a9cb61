from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_core.fleet.prompt_tokens import PromptTokens, TokenLedger, from_usage
from ppd_wire.metrics.scraped import EngineFigures


def gained(local=0.0, external=0.0, computed=0.0):
    return EngineFigures(prompt_local_cache=local, prompt_external_kv=external, prompt_computed=computed)


def test_usage_splits_into_cache_and_computed():
    assert from_usage(100, 64) == PromptTokens(local_cache=64, computed=36)
    assert from_usage(100, 0) == PromptTokens(computed=100)
    assert from_usage(100, None) == PromptTokens(unknown=100)
    assert from_usage(100, 120) == PromptTokens(local_cache=100)


def test_without_other_requests_all_the_engine_counted_is_pds():
    ledger = TokenLedger()
    share = ledger.settle(gained(local=128, external=1285, computed=5), is_idle=True, now=0)
    assert share == PromptTokens(local_cache=128, external_kv=1285, computed=5)


def test_direct_requests_are_taken_off():
    ledger = TokenLedger()
    ledger.add_other(PromptTokens(local_cache=1280, computed=33))
    share = ledger.settle(gained(local=1408, external=1285, computed=34), is_idle=True, now=0)
    assert share == PromptTokens(local_cache=128, external_kv=1285, computed=1)


def test_what_the_engine_has_not_counted_yet_is_owed_to_the_next_reading():
    ledger = TokenLedger()
    ledger.add_other(PromptTokens(local_cache=100))
    assert ledger.settle(gained(), is_idle=True, now=0).total == 0
    assert ledger.settle(gained(local=100), is_idle=True, now=5).total == 0
    assert ledger.settle(gained(local=7), is_idle=True, now=10) == PromptTokens(local_cache=7)


def test_a_direct_request_in_flight_is_not_taken_for_pds():
    ledger = TokenLedger()
    assert ledger.settle(gained(local=1280, computed=33, external=10), is_idle=False, now=0) == PromptTokens(
        external_kv=10
    )
    ledger.add_other(PromptTokens(local_cache=1280, computed=33))
    assert ledger.settle(gained(), is_idle=True, now=5).total == 0


def test_under_steady_load_pds_share_comes_after_the_hold_time():
    ledger = TokenLedger(hold_s=60)
    assert ledger.settle(gained(computed=50), is_idle=False, now=0).total == 0
    assert ledger.settle(gained(), is_idle=False, now=30).total == 0
    assert ledger.settle(gained(computed=9), is_idle=False, now=60) == PromptTokens(computed=50)
    assert ledger.settle(gained(), is_idle=False, now=120) == PromptTokens(computed=9)


def test_where_direct_requests_do_not_tell_pds_rest_is_unknown_too():
    ledger = TokenLedger()
    ledger.add_other(PromptTokens(unknown=100))
    share = ledger.settle(gained(local=90, computed=30, external=500), is_idle=True, now=0)
    assert share == PromptTokens(external_kv=500, unknown=20)


requests = st.tuples(
    st.sampled_from(["pd", "direct", "silent"]), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500)
)
# What happens: a request reaches its first token, the oldest one ends, or the engine is read.
events = st.lists(st.one_of(requests, st.just("end"), st.just("read")), max_size=40)


@settings(deadline=None)
@given(events, st.floats(0, 30), st.booleans())
def test_over_time_the_sources_add_up_to_what_the_engine_reports(steps, pace_s, is_split_known):
    """`silent` requests are direct ones whose usage does not tell the cached tokens."""
    ledger, in_flight, pending = TokenLedger(hold_s=20), [], [0, 0, 0]
    reported, shares, others, now = 0, [], [], 0.0

    def read():
        share = ledger.settle(gained(*pending), is_idle=not in_flight, now=now)
        assert min(share) >= 0
        shares.append(share)
        pending[:] = [0, 0, 0]

    def end():
        route, local, computed = in_flight.pop(0)
        if route != "pd":
            split = PromptTokens(local_cache=local, computed=computed)
            others.append(PromptTokens(unknown=local + computed) if route == "silent" else split)
            ledger.add_other(others[-1])

    for step in steps:
        now += pace_s
        if step == "read":
            read()
        elif step == "end":
            if in_flight:
                end()
        else:
            route, local, external, computed = step
            route = "direct" if route == "silent" and is_split_known else route
            external = external if route == "pd" else 0
            pending[:] = [pending[0] + local, pending[1] + external, pending[2] + computed]
            reported += local + external + computed
            in_flight.append((route, local, computed))
    while in_flight:
        end()
    read()
    too_early = sum(share.total for share in (*shares, *others)) - reported
    assert too_early >= 0
    # What was given to pd too early under steady load is taken off its next requests.
    later = ledger.settle(gained(local=too_early, computed=too_early), is_idle=True, now=now + 1)
    assert 2 * too_early - later.total == too_early
