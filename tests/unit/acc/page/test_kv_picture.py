"""The heat map of KV errors."""

import pytest

from ppd_acc.page.kv_picture import Heat, Panel, Row, heat_picture, level, levels


def row(*values, label="0", tokens=8):
    step = tokens // len(values) if values else 1
    return Row(label=label, starts=tuple(range(0, step * len(values), step)), values=values, tokens=tokens)


def heat(*rows, **more):
    return heat_picture(Heat(panels=(Panel(name="keys", rows=rows),), **more))


def test_a_check_that_compared_nothing_has_no_picture():
    assert heat_picture(Heat(panels=())).is_nothing
    assert heat(row()).is_nothing


def test_the_finding_names_the_worst_place():
    picture = heat(row(0.0, 0.25, label="3"), row(0.5, 0.0, label="4"), is_match=False)
    assert picture.finding == "check-kv finds that the dumps differ. The largest relative error is 0.5 (keys, layer 4)."


def test_what_is_not_finite_is_counted_and_has_a_colour_of_its_own():
    picture = heat(row(None, 0.1))
    assert "1 of 2 cells hold numbers that are not finite." in picture.finding
    assert "heat none" in "".join(picture.parts)
    assert "heat none" not in "".join(heat(row(0.0, 0.1)).parts)


def test_findings_beyond_the_first_few_are_counted():
    picture = heat(row(0.1), findings=tuple(f"finding {number}" for number in range(7)))
    assert picture.note.endswith("finding 4; and 2 more")


@pytest.mark.parametrize("numbers", [[], [0.0], [0.1], [1e-9, 1e-3], [1e-300, 1.0]])
def test_levels_rise_and_hold_every_number(numbers):
    edges = levels(numbers)
    assert len(edges) == 7
    assert edges == sorted(set(edges))
    assert all(0 <= level(each, edges) <= 7 for each in numbers)


def test_the_largest_number_has_the_last_colour_and_zero_the_first():
    edges = levels([1e-6, 1e-3, 1.0])
    assert (level(0.0, edges), level(1.0, edges)) == (0, 7)
