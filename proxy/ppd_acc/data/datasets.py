"""Prompts from files: `.json` (an array), `.csv` (with a header), and lines of JSON under any other name.

A row has `prompt` (a text, or token ids) or `messages`; `id`, else its number from 0; `expected`; fields of an OpenAI
request body, which are sent as they are; everything else is metadata. A line of OpenAI's batch files (`custom_id`,
`body`) is such a row, too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ppd_acc.ask.question import Question
from ppd_acc.data import report as reports
from ppd_acc.outcome import Mistake
from ppd_wire.requests.sampling_fields import wrong_field

SENT = frozenset(
    "temperature top_p top_k seed max_tokens max_completion_tokens min_tokens stop stop_token_ids ignore_eos tools "
    "tool_choice parallel_tool_calls response_format presence_penalty frequency_penalty repetition_penalty logit_bias "
    "min_p reasoning_effort chat_template_kwargs add_generation_prompt continue_final_message structured_outputs "
    "guided_json guided_regex guided_choice guided_grammar bad_words skip_special_tokens".split()
)
"""Fields of a row that go into the request's body."""
_OWN = frozenset("id custom_id prompt messages expected body".split())
_REPLACED = frozenset("stream stream_options n logprobs top_logprobs".split())
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt. `line` is where it is: the line of the file, the element of an array (both from 1)."""

    sample_id: str
    question: Question
    line: int
    expected: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A dataset in memory; `sha256` is of the file's bytes."""

    path: str
    sha256: str
    rows: tuple[Row, ...]

    @property
    def stem(self) -> str:
        return Path(self.path).stem

    def described(self) -> reports.Dataset:
        return reports.Dataset(path=self.path, sha256=self.sha256, samples=len(self.rows))


def read_dataset(
    path: str | Path, flag: str = "--dataset", *, template: str | None = None, limit: int | None = None
) -> Loaded:
    """All rows, or the first `limit`. Raises Mistake, which names file, line and field."""
    name = f"{flag} {path}"
    try:
        body = Path(path).read_bytes()
    except OSError as error:
        raise Mistake(f"{name}: {error.strerror or error}") from None
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Mistake(f"{name}: not UTF-8: {error.reason} at byte {error.start}") from None
    rows: list[Row] = []
    lines: dict[str, int] = {}
    for line, fields in _fields(text, Path(path).suffix.lower(), name, needs_prompt=template is None):
        if limit is not None and len(rows) >= limit:
            break
        row = row_of(fields, line=line, number=len(rows), name=name, template=template)
        if row.sample_id in lines:
            raise Mistake(
                f"{name}, line {line}: id {row.sample_id!r} is that of line {lines[row.sample_id]}; ids must be unique"
            )
        lines[row.sample_id] = line
        rows.append(row)
    if not rows:
        raise Mistake(f"{name}: no prompt in it")
    return Loaded(path=str(path), sha256=hashlib.sha256(body).hexdigest(), rows=tuple(rows))


def read_datasets(
    paths: Sequence[str], *, template: str | None = None, limit: int | None = None
) -> tuple[tuple[Loaded, ...], tuple[Row, ...]]:
    """Several datasets and all of their rows; with more than one, ids are STEM:ID, and PATH:ID where stems are equal.

    `limit` is for each of them. Raises Mistake.
    """
    loaded = tuple(read_dataset(path, template=template, limit=limit) for path in paths)
    if len(loaded) == 1:
        return loaded, loaded[0].rows
    if len({each.path for each in loaded}) < len(loaded):
        raise Mistake(f"--dataset: the same file twice among {', '.join(paths)}; each may be given once")
    has_unique_stems = len({each.stem for each in loaded}) == len(loaded)
    rows = tuple(
        Row(
            sample_id=f"{each.stem if has_unique_stems else each.path}:{row.sample_id}",
            question=row.question,
            line=row.line,
            expected=row.expected,
            metadata={"dataset": each.path, **row.metadata},
        )
        for each in loaded
        for row in each.rows
    )
    return loaded, rows


def read_template(path: str) -> str:
    """The text of a --template file. Raises Mistake."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"--template {path}: {error}") from None
    if not _PLACE.search(text):
        raise Mistake(f"--template {path}: no {{field}} in it; it must name at least one field, such as {{prompt}}")
    return text


def row_of(fields: Mapping[str, Any], *, line: int, number: int, name: str, template: str | None = None) -> Row:
    """A row from its fields. Raises Mistake."""
    where = f"{name}, line {line}"
    body = fields.get("body")
    if body is not None:
        if not isinstance(body, Mapping):
            raise Mistake(f"{where}: body is {_short(body)}; it must be an object")
        fields = {**{key: value for key, value in fields.items() if key not in ("body", "method", "url")}, **body}
    if fields.get("n") not in (None, 1):
        raise Mistake(f"{where}: n is {_short(fields['n'])}; one answer per row is compared, so it must be 1")
    extra = {key: value for key, value in fields.items() if key in SENT and value is not None}
    wrong = wrong_field(extra)
    if wrong is not None:
        raise Mistake(f"{where}: {wrong}")
    left = {k: v for k, v in fields.items() if k not in SENT and k not in _OWN and k not in _REPLACED}
    return Row(
        sample_id=_id_of(fields, number, where),
        question=_question_of(fields, extra or None, template, where),
        line=line,
        expected=fields.get("expected"),
        metadata=left,
    )


def _id_of(fields: Mapping[str, Any], number: int, where: str) -> str:
    told = fields.get("id", fields.get("custom_id"))
    if told is None or told == "":
        return str(number)
    if isinstance(told, bool) or not isinstance(told, str | int):
        raise Mistake(f"{where}: id is {_short(told)}; it must be a text or a whole number")
    return str(told)


def _question_of(
    fields: Mapping[str, Any], extra: Mapping[str, Any] | None, template: str | None, where: str
) -> Question:
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if messages is not None:
        if prompt is not None:
            raise Mistake(f"{where}: prompt and messages; only one of them can be asked")
        if not isinstance(messages, list) or not messages or not all(_is_message(each) for each in messages):
            raise Mistake(f"{where}: messages is {_short(messages)}; it must be a list of objects, each with a role")
        return Question(messages=messages, extra=extra)
    if template is not None:
        return Question(prompt=_filled(template, fields, where), extra=extra)
    if prompt is None:
        raise Mistake(f"{where}: neither prompt nor messages; there are {', '.join(map(str, fields)) or 'no fields'}")
    is_ids = isinstance(prompt, list) and bool(prompt) and all(type(each) is int and each >= 0 for each in prompt)
    if not is_ids and not isinstance(prompt, str):
        raise Mistake(f"{where}: prompt is {_short(prompt)}; it must be a text or a list of token ids")
    if not prompt:
        raise Mistake(f"{where}: prompt is empty")
    return Question(prompt=prompt, extra=extra)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str)


def _filled(template: str, fields: Mapping[str, Any], where: str) -> str:
    def value(found: re.Match[str]) -> str:
        key = found[1]
        if fields.get(key) is None:
            raise Mistake(f"{where}: the template asks for {{{key}}}, and the row has no {key}")
        told = fields[key]
        return told if isinstance(told, str) else msgspec.json.encode(told).decode()

    return _PLACE.sub(value, template)


def _fields(text: str, suffix: str, name: str, *, needs_prompt: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line (from 1) and fields of every row."""
    if suffix == ".csv":
        yield from _of_csv(text, name, needs_prompt=needs_prompt)
    elif suffix == ".json":
        yield from _of_array(text, name)
    else:
        for line, each in enumerate(text.split("\n"), start=1):
            if each.strip():
                yield line, _object(_decoded(each, f"{name}, line {line}"), f"{name}, line {line}")


def _of_array(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    told = _decoded(text, name)
    if not isinstance(told, list):
        raise Mistake(
            f"{name}: {type(told).__name__} instead of an array; write one object per line into a .jsonl file"
        )
    for number, each in enumerate(told, start=1):
        yield number, _object(each, f"{name}, element {number}")


def _of_csv(text: str, name: str, *, needs_prompt: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Empty cells are missing fields. Cells of fields that go into the body are read as JSON where they are JSON."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [each.strip() for each in next(reader, [])]
        if needs_prompt and not {"prompt", "messages", "body"} & set(header):
            raise Mistake(f"{name}, line 1: the header is {header!r}; it must have a column prompt")
        if len(set(header)) < len(header):
            raise Mistake(f"{name}, line 1: a column twice in {header!r}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise Mistake(f"{name}, line {reader.line_num}: {len(cells)} cells; the header has {len(header)}")
            found = {key: cell for key, cell in zip(header, cells, strict=True) if cell}
            yield reader.line_num, {key: _cell(key, cell) for key, cell in found.items()}
    except csv.Error as error:
        raise Mistake(f"{name}, line {reader.line_num}: {error}") from None


def _cell(key: str, cell: str) -> Any:
    if key not in SENT and key not in ("messages", "body"):
        return cell
    try:
        return msgspec.json.decode(cell)
    except msgspec.MsgspecError:
        return cell


def _decoded(text: str, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Mistake(f"{where}: not valid JSON: {error}") from None


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        raise Mistake(f"{where}: {_short(value)} is no object with a prompt")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
