"""Which paths reach engines."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_proxy.server.paths import PASSED_ON, passed_on, with_query

MODELS = "/v1/models/"


@pytest.mark.parametrize("path", [path for path in PASSED_ON if "<" not in path])
def test_the_paths_of_the_table_are_passed_on_however_they_are_encoded(path):
    assert passed_on(path.encode()) == path
    assert passed_on("".join(f"%{byte:02x}" for byte in path.encode()).encode()) == path


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"llama", "llama"), (b"org/name", "org/name"), (b"org%2Fname", "org/name"), (b"a/b/c", "a/b/c"),
        (b"Qwen2.5-7B", "Qwen2.5-7B"), (b"..name", "..name"), (b"name..", "name.."), (b".../x", ".../x"),
        (b"a:free@1+2,x=y", "a:free@1+2,x=y"), (b"a%20b", "a%20b"), (b"caf\xc3\xa9", "caf%C3%A9"),
        (b"caf%C3%A9", "caf%C3%A9"), (b"what%3F", "what%3F"), (b"a%23b", "a%23b"), (b"a;b", "a%3Bb"),
    ],
)  # fmt: skip
def test_a_models_name_is_decoded_once_and_written_anew(raw, name):
    assert passed_on(MODELS.encode() + raw) == MODELS + name


@pytest.mark.parametrize(
    "raw",
    [
        b"..%2f..%2fsleep", b"../../sleep", b"%2e%2e/%2e%2e/sleep", b"%2E%2E%2f%2E%2E%2fsleep", b"..", b".", b"%2e",
        b"a/..", b"a/../b", b"a/./b", b"./a", b"a/.", b"", b"/", b"a/", b"/a", b"a//b", b"a%2f%2fb", b"%2fa", b"a%2f",
        b"..\\..\\sleep", b"..%5c..%5csleep", b"a\\b", b"%252e%252e%252fsleep", b"%25", b"a%252fb", b"100%", b"a%zz",
        b"a%00", b"a%0d%0aHost:x", b"a%09", b"a%7f", b"a%c2%85", b"a%e2%80%a8", b"a%e2%80%ae", b"%ff", b"%c0%ae%c0%ae",
        b"%c0%afx", b"a\xff", b"%ed%a0%80",
    ],
)  # fmt: skip
def test_no_trick_in_a_models_name_reaches_an_engine(raw):
    assert passed_on(MODELS.encode() + raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"/v1/models/", b"//v1/models", b"/v1//models", b"/v1/../v1/models", b"/V1/models", b"/version;x",
        b"/v1/./models", b"v1/models", b"*", b"", b"/", b"/sleep", b"/version/", b"/tokenize/..", b"/v1/embeddings/x",
        b"/v1/models%00", b"/v1/models%20", b"/v1/models?x", b"http://x/v1/models", b"/v1%252fmodels", b"/v1\\models",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_path_of_the_table_is_not_passed_on(raw):
    assert passed_on(raw) is None


@settings(deadline=None)  # a busy machine is not a failure
@given(st.binary(max_size=40))
def test_whatever_is_passed_on_decodes_to_itself_without_leaving_the_table(rest):
    path = passed_on(MODELS.encode() + rest)
    if path is not None:
        assert path.isascii()
        assert path.isprintable()
        decoded = unquote_to_bytes(path).decode()
        assert passed_on(path.encode()) == path
        assert decoded.startswith(MODELS)
        assert not {"", ".", ".."} & set(decoded.removeprefix(MODELS).split("/"))


def test_a_query_travels_on_as_it_came_but_for_what_no_target_may_hold():
    assert with_query(b"/version", b"") == b"/version"
    assert with_query(b"/version", b"a=1&b=%2e%2e/?c") == b"/version?a=1&b=%2e%2e/?c"
    assert with_query(b"/version", b"a=\tb \x00\x7f\xe9\r\n") == b"/version?a=%09b%20%00%7F%E9%0D%0A"
