"""One generation request as it arrived."""

import pytest
from tests.support.parts import make_call


@pytest.mark.parametrize(
    ("dialect", "kind"), [("chat", "chat"), ("completion", "completion"), ("responses", None), ("messages", None)]
)
def test_only_chats_and_completions_may_be_split(dialect, kind):
    assert make_call(b"{}", dialect).envelope.kind == kind
