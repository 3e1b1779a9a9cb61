import pytest

from ppd_sim.model.chat import TemplateError, chat_tokens, render, tool_arguments
from ppd_sim.model.tokens import EOS_ID, Tokenizer

USER = {"role": "user", "content": "Tell me a story"}


def tokens(body):
    return chat_tokens(Tokenizer(), body, 4)[1]


def test_an_answer_in_the_history_renders_to_the_tokens_that_were_generated():
    tokenizer = Tokenizer()
    answer = [*tokenizer.encode("Lake know. The river"), EOS_ID]
    first = tokens({"messages": [USER]})
    content = tokenizer.decode(answer, skip_special=True)
    second = tokens({"messages": [USER, {"role": "assistant", "content": content}, USER]})
    assert second[: len(first) + len(answer)] == first + answer


def test_a_tool_call_in_the_history_renders_to_the_generated_text():
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": tool_arguments("Lake know")}}
    with_call = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    plain = [USER, {"role": "assistant", "content": "Lake know"}]
    assert tokens({"messages": with_call}) == tokens({"messages": plain})


def test_list_content_equals_the_same_text_as_a_string():
    parts = [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "a story"}]
    assert tokens({"messages": [{"role": "user", "content": parts}]}) == tokens({"messages": [USER]})


def test_images_become_tokens_that_depend_on_their_address():
    def with_image(url):
        return tokens({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]})

    assert with_image("a") == with_image("a")
    assert with_image("a") != with_image("b")
    assert len(with_image("a")) == len(tokens({"messages": [{"role": "user", "content": ""}]})) + 4


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"documents": [{"text": "a"}]},
        {"add_generation_prompt": False},
        {"continue_final_message": True, "add_generation_prompt": False},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_what_changes_the_prompt_changes_the_tokens(extra):
    assert tokens({"messages": [USER], **extra}) != tokens({"messages": [USER]})


@pytest.mark.parametrize(
    "messages",
    [None, [], ["x"], [{"content": "x"}], [{"role": "king", "content": "x"}], [{"role": "user", "content": 3}]],
)
def test_messages_that_cannot_be_rendered_are_refused(messages):
    with pytest.raises(TemplateError):
        render({"messages": messages})
