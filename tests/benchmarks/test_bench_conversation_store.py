"""The store's benchmark runs on a small store and tells all its figures."""

import json
import sys

import conversation_store


def test_it_tells_size_times_and_longest_calls(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["conversation_store.py", "--conversations", "30", "--requests", "10"])
    assert conversation_store.main() == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(summary["us"]) == 4
    assert {"remember", "clear", "forget the homes at one engine"} <= summary["longest_ms"].keys()
    assert "bytes_each" in summary
