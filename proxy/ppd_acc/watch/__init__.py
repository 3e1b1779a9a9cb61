"""Rounds that go on for days: when the next is due, what it says, and where that is written."""
