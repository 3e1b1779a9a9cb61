"""A mistake in the settings."""

from __future__ import annotations


class ConfigError(Exception):
    """Every mistake found in a configuration, one sentence each: field, value, what would be right."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes
