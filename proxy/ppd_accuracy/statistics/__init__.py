"""Tests and intervals that know nothing of language models."""
