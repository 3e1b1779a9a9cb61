"""What is known of one request while it is served."""

from tests.support.parts import Parts, make_call


def test_the_client_sees_its_own_id_or_else_the_proxys():
    parts = Parts()
    assert parts.begin(make_call(b"{}", x_request_id="mine\xe9")).shown_id == "mine\xc3\xa9"
    ongoing = parts.begin(make_call(b"{}"))
    assert ongoing.shown_id == ongoing.record.request_id
