#!/usr/bin/env python3
"""Writes docs/ppd-acc.schema.json, the JSON Schema of everything `ppd-acc` writes as JSON, from the code.

`--check` only says whether the file is what it would write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from ppd_acc.cli.main import VERSION
from ppd_acc.cli.registry import COMMANDS
from ppd_acc.data.report import Report
from ppd_acc.data.snapshots import SNAPSHOT_VERSION, Snapshot
from ppd_acc.outcome import Exit

SCHEMA = Path(__file__).parents[1] / "docs" / "ppd-acc.schema.json"


def schema() -> dict[str, Any]:
    """A document is a command's result (`--json`), a report (what batch-compare writes with --output) or a snapshot."""
    _, definitions = msgspec.json.schema_components([Report, Snapshot], ref_template="#/$defs/{name}")
    definitions["Result"] = {
        "title": "Result",
        "description": "What --json writes. Beside these fields stand those of the command.",
        "type": "object",
        "required": ["kind", "version", "exit", "outcome", "notes"],
        "properties": {
            "kind": {"enum": sorted(command.name for command in COMMANDS)},
            "version": {"const": VERSION},
            "exit": {"enum": [int(code) for code in Exit]},
            "outcome": {"enum": [code.name.lower() for code in Exit]},
            "notes": {"type": "array", "items": {"type": "string"}},
            "message": {"type": "string", "description": "Why it failed, where it did."},
        },
    }
    definitions["Report"]["required"] = ["kind", "version", "samples"]
    definitions["Snapshot"]["required"] = ["kind", "version", "samples"]
    definitions["Snapshot"]["properties"]["version"] = {"const": SNAPSHOT_VERSION}
    closed = "Report Sample Side Flip Difference Forced Totals Noise Snapshot Kept Answer Measured"
    for name in closed.split():
        definitions[name]["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ppd-acc",
        "if": {"required": ["exit"]},
        "then": {"$ref": "#/$defs/Result"},
        "else": {
            "if": {"properties": {"kind": {"const": "snapshot"}}},
            "then": {"$ref": "#/$defs/Snapshot"},
            "else": {"$ref": "#/$defs/Report"},
        },
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(schema(), indent=2) + "\n"


def main() -> int:
    if "--check" in sys.argv[1:]:
        return int(not SCHEMA.is_file() or SCHEMA.read_text(encoding="utf-8") != text())
    SCHEMA.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
