"""What several commands show."""

import pytest
from rich.console import Console
from rich.text import Text

from ppd_acc.views import Progress, counted, noise_line, number, numbers_table, shown, span
from ppd_accuracy.answers.flips import measure, replay_noise_of


@pytest.mark.parametrize(("count", "told"), [(0, "0 answers"), (1, "1 answer"), (2, "2 answers")])
def test_a_counted_noun_is_plural_but_for_one(count, told):
    assert counted(count, "answer") == told


def test_a_counted_phrase_has_its_own_plural():
    assert counted(1, "answer differs", "answers differ") == "1 answer differs"
    assert counted(3, "answer differs", "answers differ") == "3 answers differ"


def test_a_floor_of_one_answer_is_told_in_the_singular():
    line = noise_line(replay_noise_of([measure([0.1], [0.1], prompt_tokens=1, is_flipped=True)]))
    assert line.startswith("noise floor of 1 answer to prompts of up to 1 token, 1 token: ")
    assert line.endswith("1 answer differs when asked again")


def test_a_span_takes_the_ends_of_an_interval():
    assert span(*(0.25, 0.5)) == span(**{"low": 0.25, "high": 0.5}) == "25.00 % to 50.00 %"


def test_an_unknown_number_is_a_dash():
    assert (number(None), number(0.123456)) == ("-", "0.1235")


def test_numbers_stand_right_of_words():
    table = numbers_table(("engine",), ("runs", "share"), "Runs")
    assert [column.justify for column in table.columns] == ["left", "right", "right"]
    assert table.title == "Runs"


def test_text_in_a_view_is_no_markup():
    part = shown("[bold]x[/bold]")
    assert isinstance(part, Text)
    assert part.plain == "[bold]x[/bold]"


def test_progress_counts_its_own_steps(tmp_path):
    now = iter((0.0, 6.0, 12.0))
    with (tmp_path / "told").open("w+") as file:
        progress = Progress(Console(file=file, width=160), "asking", 2, clock=lambda: next(now))
        progress.step()
        progress.step()
        file.seek(0)
        assert [line.split(",")[0] for line in file] == ["asking: 1 of 2", "asking: 2 of 2"]
