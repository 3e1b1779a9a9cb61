import pytest

from ppd_proxy.server.answer_heads import STATUS_LINES, answer_head


def test_a_head_is_its_status_and_its_fields_in_their_order():
    fields = [(b"b", b"1"), (b"a", b"2")]
    assert b"".join(answer_head(404, fields, is_last=False)) == b"HTTP/1.1 404 Not Found\r\nb: 1\r\na: 2\r\n"
    assert b"".join(answer_head(200, [], is_last=True)) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n"


@pytest.mark.parametrize("status", [299, 499, 520, 599])
def test_a_status_that_nobody_named_has_an_empty_phrase(status):
    assert STATUS_LINES[status] == b"HTTP/1.1 %d \r\n" % status


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 999])
def test_what_ends_no_request_is_no_status_of_an_answer(status):
    assert status not in STATUS_LINES
