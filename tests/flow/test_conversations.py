"""Conversations of several turns through a split cluster: routes, prefill legs, and answers like an unsplit one."""

import json

import pytest
from tests.support.cluster import CHAT, COMPLETIONS, ask_engine, assistant, running_cluster, user

from ppd_proxy.config.sections import Routing
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine

QUESTIONS = [f"Question {number}: tell me more about the mill and the river beside it." for number in range(5)]
TURNS = len(QUESTIONS)


def mode(name):
    return {"routing": Routing(mode=name)}


def plain(reply):
    """An answer without what may differ between two engines: its id, its time, and whose cache served it."""
    shown = [*reply.events, reply.payloads[-1]] if reply.is_stream else [reply.json]
    for part in shown:
        if isinstance(part, dict):
            part.update(id=None, created=None)
            part.pop("kv_transfer_params", None)  # null here, and no client's business
            if part.get("usage"):
                part["usage"]["prompt_tokens_details"] = None
    return json.dumps(shown)


async def five_turns(ask, *, is_chat, **fields):
    """`ask(path, body)` for each turn of one conversation, each with the answers before it; gives the replies."""
    replies, messages, prompt = [], [], ""
    for question in QUESTIONS:
        messages.append(user(question))
        prompt += f"\nQ: {question}\nA:"
        history = {"messages": messages} if is_chat else {"prompt": prompt}
        reply = await ask(
            CHAT if is_chat else COMPLETIONS, {**history, "max_tokens": 40, "temperature": 0, "model": "sim", **fields}
        )
        assert reply.status == 200, reply.body
        replies.append(reply)
        messages.append(assistant(reply.text))
        prompt += reply.text
    return replies


STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("fields", [{}, STREAM, {"stream": True}], ids=["json", "sse with usage", "sse"])
@pytest.mark.parametrize("is_chat", [True, False], ids=["chat", "completion"])
@pytest.mark.parametrize("name", ["pd", "ppd"])
async def test_five_turns_answer_like_an_unsplit_engine_and_prefill_as_the_mode_says(name, is_chat, fields):
    async with running_engine(EngineConfig(role="aggregated")) as whole, running_cluster(**mode(name)) as cluster:
        replies = await five_turns(cluster.ask, is_chat=is_chat, **fields)

        async def unsplit(path, body):
            return await ask_engine(cluster.http, whole, path, body)

        expected = await five_turns(unsplit, is_chat=is_chat, **fields)
        assert [plain(reply) for reply in replies] == [plain(reply) for reply in expected]

        later = [("pd", "mode_pd") if name == "pd" else ("direct", "known_history")] * (TURNS - 1)
        routes = [("pd", "first_turn"), *later]
        assert [reply.decision for reply in replies] == [
            f"{route};reason={reason};turn={turn}" for turn, (route, reason) in enumerate(routes, 1)
        ]
        assert len(cluster.prefill.requests) == (TURNS if name == "pd" else 1)
        assert cluster.decode.counts.transfers == (TURNS if name == "pd" else 1)
        assert cluster.decode.counts.mismatched_handoffs == 0
        assert cluster.is_idle


async def test_a_direct_turn_is_served_from_the_home_engines_own_cache():
    async with running_cluster() as cluster:
        replies = await five_turns(cluster.ask, is_chat=True)
        usages = [reply.json["usage"] for reply in replies]
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
        assert cached[0] == 0
        for turn in range(1, TURNS):
            held = usages[turn - 1]["prompt_tokens"] + usages[turn - 1]["completion_tokens"] - 1
            assert cached[turn] == held // 16 * 16


async def test_an_answer_that_ends_by_itself_is_continued_directly():
    """The engine's own end of turn, not max_tokens."""
    async with running_cluster() as cluster:
        replies = await five_turns(cluster.ask, is_chat=True, max_tokens=400)
        assert "stop" in [reply.json["choices"][0]["finish_reason"] for reply in replies]
        assert [reply.route for reply in replies] == ["pd"] + ["direct"] * 4


async def test_token_id_prompts_are_continued_directly_and_ids_stay_hidden_unless_asked_for():
    async with running_cluster() as cluster:
        prompt = list(range(1100, 1200))
        first = await cluster.complete(prompt, return_token_ids=True)
        ids = first.json["choices"][0]["token_ids"]
        assert len(ids) == 20
        second = await cluster.complete([*prompt, *ids, 1300, 1301])
        assert (second.route, second.reason) == ("direct", "known_history")
        assert second.json["choices"][0].get("token_ids") is None
        hidden = cluster.decode.requests[-1].body
        assert hidden["return_token_ids"] is True
        third = await cluster.complete([*prompt, *ids, 1300, 1301], stream=True)
        assert all(choice.get("token_ids") is None for event in third.events for choice in event["choices"])


async def test_users_with_the_same_first_message_are_told_apart():
    async with running_cluster(decode=2) as cluster:
        opener = [user("Hello!")]
        # Sampled, so both get another answer to the same opener.
        answers = [(await cluster.chat(opener, temperature=1, seed=seed)).text for seed in (1, 2)]
        assert answers[0] != answers[1]
        for number, answer in enumerate([*answers, "an answer nobody ever gave"]):
            reply = await cluster.chat([*opener, assistant(answer), user("Go on.")])
            expected = ("direct", "known_history") if number < 2 else ("pd", "history_unknown")
            assert (reply.route, reply.reason) == expected
            assert reply.decision.endswith("turn=2" if number < 2 else "turn=1")


async def test_a_shared_system_prompt_is_not_a_known_history():
    async with running_cluster() as cluster:
        system = {"role": "system", "content": "You are a very careful assistant. " * 60}
        await cluster.chat([system, user("First user's question")])
        reply = await cluster.chat([system, user("Second user's question")])
        assert reply.decision == "pd;reason=first_turn;turn=1"


async def grown(cluster, **fields):
    """Three answered turns; gives the history."""
    history = []
    for question in QUESTIONS[:3]:
        history.append(user(question))
        history.append(assistant((await cluster.chat(history, **fields)).text))
    return history


async def test_branches_and_regenerated_answers_go_to_the_home_directly():
    async with running_cluster() as cluster:
        history = await grown(cluster)
        branch = await cluster.chat([*history[:4], user("Another third question altogether")])
        assert branch.decision == "direct;reason=known_history;turn=3"
        again = await cluster.chat(history[:5], temperature=1, seed=7)
        assert again.decision == "direct;reason=known_history;turn=3"
        assert again.text != history[5]["content"]
        for answer in (again.text, history[5]["content"]):
            onward = await cluster.chat([*history[:5], assistant(answer), user("Go on.")])
            assert onward.decision == "direct;reason=known_history;turn=4"
        assert len(cluster.prefill.requests) == 1


@pytest.mark.parametrize(
    ("place", "edited", "turn"),
    [
        pytest.param(0, user("An edited first question"), 1, id="first question"),
        pytest.param(1, assistant("An edited first answer"), 1, id="first answer"),
        pytest.param(2, user("An edited second question"), 2, id="second question"),
        pytest.param(5, assistant("An edited last answer"), 3, id="last answer"),
    ],
)
async def test_an_edited_history_is_prefilled_again(place, edited, turn):
    async with running_cluster() as cluster:
        history = await grown(cluster)
        history[place] = edited
        reply = await cluster.chat([*history, user("Go on.")])
        assert reply.decision == f"pd;reason=history_unknown;turn={turn}"
        assert cluster.decode.counts.mismatched_handoffs == 0


async def test_keys_and_scopes_do_not_share_histories():
    async with running_cluster(engine={"adapters": ("lora",)}) as cluster:
        alice, bob = {"authorization": "Bearer alice"}, {"authorization": "Bearer bob"}
        opener = [user("Hello there")]
        answer = (await cluster.chat(opener, headers=alice)).text
        history = [*opener, assistant(answer), user("Go on.")]
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        for headers, fields in (
            (bob, {}), ({}, {}), (alice, {"cache_salt": "s"}), (alice, {"model": "lora"}),
            (alice, {"tools": tools, "tool_choice": "auto"}), (alice, {"chat_template_kwargs": {"x": 1}}),
            ({**alice, "x-session-id": "other"}, {}), (alice, {"prompt_cache_key": "other"}),
        ):  # fmt: skip
            reply = await cluster.chat(history, headers=headers, **fields)
            assert (reply.route, reply.reason) == ("pd", "history_unknown"), (headers, fields)
        assert (await cluster.chat(history, headers=alice)).route == "direct"


async def test_images_and_part_lists_belong_to_the_history():
    async with running_cluster() as cluster:

        def ask(url):
            return user([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}])

        answer = (await cluster.chat([ask("data:image/png;base64,AAAA")])).text
        tail = [assistant([{"type": "text", "text": answer}]), user("Really?")]
        same = await cluster.chat([ask("data:image/png;base64,AAAA"), *tail])
        other = await cluster.chat([ask("data:image/png;base64,BBBB"), *tail])
        assert (same.route, other.route) == ("direct", "pd")


@pytest.mark.parametrize("what", ["drained", "removed", "died", "restarted"])
async def test_a_conversation_whose_home_is_gone_is_prefilled_again_in_the_same_turn(what):
    async with running_cluster(decode=2) as cluster:
        opener = [user("Hello there")]
        answer = (await cluster.chat(opener)).text
        home = next(engine for engine in cluster.decodes if engine.requests)
        other = next(engine for engine in cluster.decodes if engine is not home)
        if what == "drained":
            await cluster.ask(f"/engines/{home.http_address}/drain", {})
        elif what == "removed":
            await cluster.ask(f"/engines/{home.http_address}", method="DELETE")
        else:
            if what == "died":
                home.kill()
            for is_healthy in (False, False, False) if what == "died" else (False, False, False, True, True):
                cluster.runtime.fleet.probed(home.http_address, is_healthy, 0.0)
        history = [*opener, assistant(answer), user("Go on.")]
        reply = await cluster.chat(history)
        assert reply.decision == "pd;reason=home_gone;turn=2"
        history += [assistant(reply.text), user("And then?")]
        third = await cluster.chat(history)
        assert third.decision == "direct;reason=known_history;turn=3"
        assert what == "restarted" or len(other.requests) == 2


async def test_a_cleared_memory_makes_every_history_unknown():
    async with running_cluster() as cluster:
        history = await grown(cluster)
        assert (await cluster.ask("/conversations/clear", {})).json == {"cleared": 1}
        reply = await cluster.chat([*history, user("Go on.")])
        assert reply.decision == "pd;reason=history_unknown;turn=1"


async def test_conversations_spread_over_the_engines_and_stay_at_home():
    async with running_cluster(prefill=2, decode=3) as cluster:
        histories = []
        for number in range(40):
            opener = [user(f"Opening of conversation {number}")]
            histories.append([*opener, assistant((await cluster.chat(opener)).text)])
        assert all(engine.requests for engine in cluster.prefills)
        first = [len(engine.requests) for engine in cluster.decodes]
        assert all(first)
        for history in histories:
            assert (await cluster.chat([*history, user("Go on.")])).route == "direct"
        assert [len(engine.requests) for engine in cluster.decodes] == [2 * count for count in first]
        assert sum(len(engine.requests) for engine in cluster.prefills) == len(histories)


async def test_the_prefill_leg_asks_for_one_token_of_the_same_prompt():
    async with running_cluster() as cluster:
        await cluster.chat("Hello", stream=True, stream_options={"include_usage": True}, max_tokens=30, min_tokens=3)
        (leg,) = [received.body for received in cluster.prefill.requests]
        assert leg["max_tokens"] == 1
        assert not leg.get("stream")
        assert "min_tokens" not in leg
        assert "stream_options" not in leg
        assert leg["messages"] == [user("Hello")]


async def test_engines_with_a_shared_store_get_both_legs_without_parameters():
    routing = Routing(handoff="none")
    async with running_cluster(engine={"handoff": "none"}, routing=routing) as cluster:
        replies = await five_turns(cluster.ask, is_chat=True)
        assert [reply.route for reply in replies] == ["pd"] + ["direct"] * 4
        bodies = [received.body for engine in cluster.engines for received in engine.requests]
        assert len(bodies) == 1 + TURNS
        assert all("kv_transfer_params" not in body for body in bodies)


async def test_connections_to_engines_are_used_again():
    async with running_cluster() as cluster:
        for number in range(30):
            await cluster.chat(f"Hi {number}", max_tokens=2, stream=number % 2 == 0)
        # One for requests; probes have their own, and simulated engines talk to each other.
        assert all(len(engine._connections.open) <= 3 for engine in cluster.engines)
