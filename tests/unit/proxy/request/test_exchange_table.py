"""Every play that can happen to an exchange, held against the table and the rules of its module."""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.builders import aggregated_plan, direct_plan, pd_plan
from tests.support.playbook import (
    EXCHANGE_FACTS,
    FIRST_BYTE,
    GONE,
    LEG_REFUSED,
    STOPPING,
    Watch,
    broken,
    ended,
    passed,
    planned,
    refused,
    said,
    told,
    unreachable,
)

import ppd_proxy
from ppd_proxy.request.exchange import Exchange, Phase
from ppd_proxy.request.signals import ClientGone, Planned
from ppd_proxy.upstream.events import LegEnded

NIXL, P2P, SHARED = planned(pd_plan()), planned(pd_plan(handoff="p2p_nccl")), planned(pd_plan(handoff="none"))
DIRECT, AGGREGATED = planned(direct_plan()), planned(aggregated_plan())


SOURCE = Path(ppd_proxy.__file__).with_name("request") / "exchange.py"


@dataclass(frozen=True)
class Row:
    phase: str
    event: str
    next: str
    commands: str

    @property
    def names(self):
        return frozenset(re.findall(r"[A-Z]\w+", self.commands))

    def __str__(self):
        return f"{self.phase} {self.event} {self.next}"


COMMANDS = frozenset({
    "MakePlan", "OpenLeg", "ArmDeadline", "AbortLeg", "StartResponse", "RelayAnswer", "EndResponse", "BreakResponse",
    "Respond", "Release", "NoteStranded",
})  # fmt: skip


def read_table(text):
    """The rows of the transition table; empty cells repeat the one above."""
    lines = text.splitlines()
    ruler = next(index for index, line in enumerate(lines) if re.fullmatch(r"\s*-+(\s+-+){3}", line))
    starts = [match.start() for match in re.finditer("-+", lines[ruler])]
    rows, above = [], ["", "", "", ""]
    for line in lines[ruler + 1 :]:
        if not line.strip():
            return rows
        cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        is_new_phase, is_new_event = bool(cells[0]), bool(cells[1])
        cells[0] = cells[0] or above[0]
        cells[1] = cells[1] if is_new_phase or is_new_event else above[1]
        cells[2] = cells[2] or above[2]
        above = cells
        rows.append(Row(*cells[:3], " ".join(re.findall(r"\b(?:" + "|".join(COMMANDS) + r")\b", cells[3]))))
    return rows


TABLE = read_table(ast.get_docstring(ast.parse(SOURCE.read_text(encoding="utf-8")), clean=False) or "")

NOT_READY, BROKEN, UNREACHABLE = ended(503), broken(), unreachable()
BROKEN_BY_US = replace(BROKEN, is_our_doing=True)  # with the same error, so that equal states are seen as equal
PREFILL_ENDS = (ended(200, kv=True), ended(200), ended(400), ended(500, is_client_fault=True), NOT_READY)
DECODE_ENDS = (ended(200), ended(400), ended(500, is_client_fault=True), NOT_READY)
REFUSED = refused()


def possible(watch):
    """What can happen next to an exchange whose engines and planner do nothing absurd."""
    plan, wanted = watch.exchange.plan, watch.must_plan
    if wanted is not None:
        if wanted.keep is not None:
            return (planned(pd_plan(d="d2")), AGGREGATED, REFUSED, STOPPING)
        return (NIXL, P2P, SHARED, DIRECT, AGGREGATED, REFUSED, STOPPING)
    events = [STOPPING] if watch.is_gone else [GONE, STOPPING]
    if watch.deadline is not None:
        events.append(passed(watch.deadline))
    if watch.leg is not None:
        is_streaming = watch.exchange.phase is Phase.STREAMING
        events += [BROKEN] if is_streaming else [BROKEN, UNREACHABLE]
        holds = plan is not None and planned(plan).holds_kv
        if watch.leg == "prefill":
            events += PREFILL_ENDS if holds else PREFILL_ENDS[1:]
        else:
            events += [ended(200)] if is_streaming else DECODE_ENDS
            events += [FIRST_BYTE, LEG_REFUSED, BROKEN_BY_US] if watch.leg == "decode" and not is_streaming else []
    return events


def label(event):
    """The event as the table names it."""
    if not isinstance(event, LegEnded):
        return type(event).__name__
    is_fault = event.status < 500 or event.is_client_fault
    return "LegEnded " + ("2xx" if event.status < 400 else "4xx" if is_fault else "5xx")


@cache
def all_plays(retries=1):
    """Every play to its end: `(transitions, breaches, longest play)`.

    Plays that differ only in how an equal state was reached are followed once.
    """
    transitions, breaches, longest = set(), {}, 0
    first = Watch(Exchange(retries))
    first.start()
    seen, queue = set(), [((), first)]
    while queue:
        events, watch = queue.pop()
        for event in possible(watch):
            before, after = watch.exchange.phase, watch.branch()
            commands = after.handle(event)
            names = frozenset(type(command).__name__ for command in commands)
            transitions.add((before.name, label(event), after.exchange.phase.name, names))
            for breach in after.breaches:
                breaches.setdefault(breach, (*events, event))
            longest = max(longest, len(events) + 1)
            state = tuple(getattr(after.exchange, name) for name in EXCHANGE_FACTS)
            state = (*state, after.leg, after.deadline, after.is_gone, after.must_plan, *after.breaches)
            if after.exchange.phase is not Phase.DONE and state not in seen:
                seen.add(state)
                queue.append(((*events, event), after))
        assert len(seen) < 10_000, "an exchange must come to an end"
    return transitions, breaches, longest


def rows_for(phase, event, following, names):
    for row in TABLE:
        is_event = row.event in (event, event.split()[0]) and row.phase == phase
        if is_event and row.next == following and names <= row.names:
            yield row


def test_the_table_is_found_in_the_module():
    assert {row.phase for row in TABLE} == {phase.name for phase in Phase} - {"DONE"}
    assert len(TABLE) > 20


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_each_row_of_the_table_happens_with_all_its_commands(row):
    transitions, _, _ = all_plays()
    seen = [names for phase, event, following, names in transitions if row in rows_for(phase, event, following, names)]
    assert seen, f"no play takes this row: {row}"
    assert frozenset().union(*seen) == row.names


def test_every_transition_is_a_row_of_the_table():
    """Events that change nothing need none."""
    transitions, _, _ = all_plays()
    missing = {
        f"{phase:10} {event:14} {following:10} {', '.join(sorted(names)) or '(nothing)'}"
        for phase, event, following, names in transitions
        if not (phase == following and not names) and not any(rows_for(phase, event, following, names))
    }
    assert not missing, "the table has no row for\n  " + "\n  ".join(sorted(missing))


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_no_possible_play_breaks_a_rule_and_each_one_ends(retries):
    _, breaches, longest = all_plays(retries)
    assert longest <= 4 * (retries + 1) + 4 + 3  # a try more that the client does not pay
    assert not breaches, "\n".join(f"{what}: {[said(event) for event in events]}" for what, events in breaches.items())


ANY_EVENT = st.sampled_from([
    NIXL, P2P, SHARED, DIRECT, AGGREGATED, REFUSED, FIRST_BYTE, GONE, BROKEN, BROKEN_BY_US, UNREACHABLE, LEG_REFUSED,
    STOPPING, *PREFILL_ENDS, *DECODE_ENDS,
    passed("prefill"), passed("first_token"), passed("idle"), passed("release"),
])  # fmt: skip
END_ALL = (GONE, REFUSED, BROKEN, passed("release"), passed("prefill"), BROKEN, REFUSED, passed("release"))


@given(events=st.lists(ANY_EVENT, max_size=25), retries=st.integers(0, 3))
@settings(max_examples=400, deadline=None)
def test_events_in_any_order_release_each_plan_once_and_answer_once(events, retries):
    """Also the absurd ones: a first byte of a prefill leg, an answer while planning, a plan nobody asked for."""
    exchange = Exchange(retries)
    opened = released = answered = planning = 0
    exchange.start()
    for event in [*events, *END_ALL]:
        was = exchange.phase
        is_gone = exchange.is_client_gone
        opened += was is Phase.PLANNING and isinstance(event, Planned)
        commands = [told(each).split("(")[0] for each in exchange.handle(event)]
        released += commands.count("Release")
        answers = sum(name in ("RelayAnswer", "Respond", "EndResponse", "BreakResponse") for name in commands)
        answered += answers
        planning += commands.count("MakePlan")
        assert opened - 1 <= released <= opened
        assert not (was is Phase.DONE and commands)
        assert not (is_gone and answers)
    assert exchange.phase is Phase.DONE
    assert released == opened
    assert answered <= 1
    assert planning <= retries + (BROKEN_BY_US in events or LEG_REFUSED in events)
    assert (answered == 1) != exchange.is_client_gone, "who left after the answer is not gone"


@given(data=st.data(), retries=st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_possible_plays_with_late_events_mixed_in_break_no_rule(data, retries):
    """Late: a timer or a departure that was queued before the event that made it pointless."""
    watch = Watch(Exchange(retries))
    watch.start()
    stale = []
    for _ in range(40):
        if watch.exchange.phase is Phase.DONE:
            break
        if stale and data.draw(st.booleans()):
            watch.handle(stale.pop())
            continue
        event = data.draw(st.sampled_from(possible(watch)))
        watch.handle(event)
        if isinstance(event, ClientGone):
            stale.append(GONE)
    assert watch.exchange.phase is Phase.DONE
    for event in [*stale, FIRST_BYTE, ended(200), BROKEN, passed("release"), NIXL, REFUSED]:
        watch.handle(event)
    watch.check()
