from ppd_sim.state import EngineCounts


def test_counts_are_told_as_json_with_requests_by_path():
    counts = EngineCounts(finished=2)
    counts.requests["/v1/completions"] += 3
    told = counts.to_json()
    assert told["requests"] == {"/v1/completions": 3}
    assert type(told["requests"]) is dict
    assert (told["finished"], told["aborts"]) == (2, 0)
    assert told.keys() == set(EngineCounts.__dataclass_fields__)
