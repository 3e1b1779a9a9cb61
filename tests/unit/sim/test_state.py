from ppd_sim.state import Counts


def test_counts_are_told_as_json_with_requests_by_path():
    counts = Counts(finished=2)
    counts.requests["/v1/completions"] += 3
    told = counts.to_json()
    assert told["requests"] == {"/v1/completions": 3}
    assert type(told["requests"]) is dict
    assert (told["finished"], told["aborts"]) == (2, 0)
    assert told.keys() == set(Counts.__dataclass_fields__)
