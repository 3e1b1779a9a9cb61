"""Datasets: what a row may look like, and messages that name file, line and field."""

import hashlib

import pytest

from ppd_acc.data.datasets import read_dataset, read_datasets, read_template
from ppd_acc.outcome import Mistake


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_are_numbered_from_zero_and_their_other_keys_are_metadata(tmp_path):
    text = '{"prompt": "one", "kind": "a"}\n\n{"id": "x", "prompt": "two", "expected": "2"}\n'
    loaded = read_dataset(written(tmp_path, "p.jsonl", text))
    assert [(row.sample_id, row.question.prompt, row.line) for row in loaded.rows] == [("0", "one", 1), ("x", "two", 3)]
    assert loaded.rows[0].metadata == {"kind": "a"}
    assert loaded.rows[1].expected == "2"
    assert loaded.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_an_unknown_extension_is_read_as_lines(tmp_path):
    assert len(read_dataset(written(tmp_path, "p.txt", '{"prompt": "a"}\n{"prompt": "b"}')).rows) == 2


def test_an_array_and_a_table_give_the_same_rows(tmp_path):
    array = read_dataset(written(tmp_path, "p.json", '[{"prompt": "a", "id": 7}, {"prompt": "b,\\nc", "x": "1"}]'))
    table = read_dataset(written(tmp_path, "p.csv", 'id,prompt,x\n7,a,\n,"b,\nc",1\n'))
    for one, other in zip(array.rows, table.rows, strict=True):
        assert (one.sample_id, one.question, one.metadata) == (other.sample_id, other.question, other.metadata)


def test_fields_of_a_request_are_sent_and_a_batch_line_is_understood(tmp_path):
    text = (
        '{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": true, "logprobs": false}\n'
        '{"custom_id": "r1", "method": "POST", "url": "/v1/completions", "body": {"prompt": [1, 2], "stop": ["x"]}}\n'
    )
    first, second = read_dataset(written(tmp_path, "p.jsonl", text)).rows
    assert first.question.extra == {"max_tokens": 5}
    assert first.question.messages == [{"role": "user", "content": "hi"}]
    assert (second.sample_id, second.question.prompt, second.question.extra) == ("r1", [1, 2], {"stop": ["x"]})
    assert second.metadata == {}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("p.jsonl", '{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}', "line 2: id 'x' is that of line 1"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "id": 0}', "line 2: id '0' is that of line 1"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt"', "line 2: not valid JSON"),
        ("p.jsonl", '{"text": "a"}', "line 1: neither prompt nor messages; there are text"),
        ("p.jsonl", '{"prompt": 3}', "line 1: prompt is 3; it must be a text or a list of token ids"),
        ("p.jsonl", '{"prompt": [1, true]}', "prompt is [1, True]; it must be"),
        ("p.jsonl", '{"prompt": ""}', "line 1: prompt is empty"),
        ("p.jsonl", "[1]", "line 1: [1] is no object"),
        ("p.jsonl", '{"prompt": "a", "id": {}}', "line 1: id is {}; it must be a text or a whole number"),
        ("p.jsonl", '{"prompt": "a", "n": 2}', "line 1: n is 2"),
        ("p.jsonl", '{"messages": [{"content": "x"}]}', "each with a role"),
        ("p.jsonl", '{"messages": [{"role": "user"}], "prompt": "a"}', "prompt and messages"),
        ("p.jsonl", "\n \n", "no prompt in it"),
        ("p.json", '{"prompt": "a"}', "dict instead of an array"),
        ("p.json", '[{"prompt": "a"}, 5]', "element 2: 5 is no object"),
        ("p.csv", "id,text\n1,a\n", "line 1: the header is ['id', 'text']; it must have a column prompt"),
        ("p.csv", "prompt,x\na\n", "line 2: 1 cells; the header has 2"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_field(tmp_path, name, text, told):
    path = written(tmp_path, name, text)
    with pytest.raises(Mistake) as raised:
        read_dataset(path)
    assert told in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("field", "must"),
    [
        ('"max_tokens": "lots"', "max_tokens is 'lots'; it must be an integer from 1"),
        ('"max_completion_tokens": 0', "max_completion_tokens is 0; it must be an integer from 1"),
        ('"min_tokens": 1.5', "min_tokens is 1.5; it must be an integer from 0"),
        ('"temperature": true', "temperature is True; it must be a number from 0"),
        ('"temperature": -0.1', "temperature is -0.1; it must be a number from 0"),
        ('"top_p": 0', "top_p is 0; it must be a number above 0 to 1"),
        ('"top_k": -2', "top_k is -2; it must be an integer from -1"),
        ('"min_p": 1.1', "min_p is 1.1; it must be a number from 0 to 1"),
        ('"seed": 9223372036854775808', "it must be an integer from -9223372036854775808 to 9223372036854775807"),
        ('"presence_penalty": 3', "presence_penalty is 3; it must be a number from -2 to 2"),
        ('"frequency_penalty": "0"', "frequency_penalty is '0'; it must be a number from -2 to 2"),
        ('"repetition_penalty": 0', "repetition_penalty is 0; it must be a number above 0"),
        ('"stop": [""]', r"stop is \[''\]; it must be a text or a list of texts, none of them empty"),
        ('"ignore_eos": 1', "ignore_eos is 1; it must be true or false"),
    ],
)
def test_a_sampling_field_that_no_engine_takes_is_told_before_anybody_is_asked(tmp_path, field, must):
    text = '{"prompt": "a"}\n{"id": "x", "prompt": "b", ' + field + "}\n"
    with pytest.raises(Mistake, match=r"p\.jsonl, line 2: .*" + must):
        read_dataset(written(tmp_path, "p.jsonl", text))
    inside = '{"body": {"prompt": "b", ' + field + "}}"
    with pytest.raises(Mistake, match=r"p\.jsonl, line 1: .*" + must):
        read_dataset(written(tmp_path, "p.jsonl", inside))


def test_sampling_fields_that_engines_take_are_sent_as_they_are(tmp_path):
    fields = (
        '"max_tokens": 1, "temperature": 0, "top_p": 1, "top_k": 0, "seed": -1, "stop": "x", "ignore_eos": true,'
        ' "min_p": null, "presence_penalty": -2.0, "repetition_penalty": 1.1, "min_tokens": 0'
    )
    (row,) = read_dataset(written(tmp_path, "p.jsonl", '{"prompt": "a", ' + fields + "}")).rows
    assert row.question.extra == {
        "max_tokens": 1, "temperature": 0, "top_p": 1, "top_k": 0, "seed": -1, "stop": "x", "ignore_eos": True,
        "presence_penalty": -2.0, "repetition_penalty": 1.1, "min_tokens": 0,
    }  # fmt: skip


def test_a_missing_file_and_bytes_that_are_no_text_are_mistakes(tmp_path):
    with pytest.raises(Mistake, match="No such file"):
        read_dataset(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(Mistake, match="not UTF-8"):
        read_dataset(tmp_path / "bytes.jsonl")


def test_a_template_is_filled_from_the_row_and_a_missing_field_is_told(tmp_path):
    template = read_template(str(written(tmp_path, "t.txt", "Q: {question} of {n_shots}? {} {{x}}")))
    rows = '{"question": "why {n_shots}", "n_shots": 3, "x": "y"}\n{"n_shots": 3}\n'
    path = written(tmp_path, "p.jsonl", rows)
    first = read_dataset(path, template=template, limit=1).rows[0]
    assert first.question.prompt == "Q: why {n_shots} of 3? {} {y}"
    with pytest.raises(Mistake, match=r"line 2: the template asks for \{question\}"):
        read_dataset(path, template=template)


def test_a_table_without_prompts_is_enough_for_a_template(tmp_path):
    path = written(tmp_path, "p.csv", "id,question\nx,why?\n")
    assert read_dataset(path, template="Q: {question}").rows[0].question.prompt == "Q: why?"


def test_several_datasets_keep_their_ids_apart(tmp_path):
    (tmp_path / "sub").mkdir()
    one, two = written(tmp_path, "a.jsonl", '{"prompt": "1"}'), written(tmp_path, "b.jsonl", '{"prompt": "2"}')
    twin = written(tmp_path, "sub/a.jsonl", '{"prompt": "3"}')
    assert [row.sample_id for row in read_datasets([str(one), str(two)])[1]] == ["a:0", "b:0"]
    assert [row.sample_id for row in read_datasets([str(one), str(twin)])[1]] == [f"{one}:0", f"{twin}:0"]
    with pytest.raises(Mistake, match="the same file twice"):
        read_datasets([str(one), str(one)])
