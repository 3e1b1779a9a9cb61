"""What reading the JSON of others may raise."""

from __future__ import annotations

import msgspec

BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""No JSON or none of the wanted form, no UTF-8, or nested too deeply."""
