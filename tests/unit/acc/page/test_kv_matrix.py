import json

import numpy as np
import pytest
from tests.support.acc.commands import run_command

from ppd_acc.outcome import Mistake
from ppd_acc.page.drawing import figure
from ppd_acc.page.kv_matrix import read_heat
from ppd_acc.page.kv_picture import Heat, Panel, Row, heat_picture, level, levels
from ppd_wire.json.strict import to_json


def row(layer, kind, values, name=None):
    starts = [16 * number for number in range(len(values))]
    return {
        "name": name or f"layer_{layer}_{kind}", "layer": layer, "kind": kind, "tokens": 16 * len(values),
        "starts": starts, "relative_l2": values,
    }  # fmt: skip


def written(tmp_path, **more):
    path = tmp_path / "kv.json"
    path.write_text(json.dumps({"kind": "check-kv", "version": 1, "match": False, "heat_map": [], **more}))
    return path


def test_layers_are_in_their_order_and_kinds_are_panels(tmp_path):
    rows = [row(layer, kind, [0.1, None]) for layer in (10, 2) for kind in ("key", "value")]
    heat = read_heat(written(tmp_path, heat_map=rows, findings=[{"text": "stale block", "arrays": []}]), "--kv")
    assert [(panel.name, [each.label for each in panel.rows]) for panel in heat.panels] == [
        ("K", ["2", "10"]),
        ("V", ["2", "10"]),
    ]
    assert heat.panels[0].rows[0].bins() == [(0, 16, 0.1), (16, 32, None)]
    assert (heat.is_match, heat.findings, heat.tokens) == (False, ("stale block",), 32)


def test_arrays_without_a_layer_keep_their_names(tmp_path):
    heat = read_heat(written(tmp_path, heat_map=[row(None, None, [0.5], name="weights")]), "--kv")
    assert heat.panels[0].rows[0].label == "weights"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "not a result of check-kv"),
        ("[]", "not a result of check-kv"),
        ('{"kind": "batch-compare"}', "kind is 'batch-compare'"),
        ('{"kind": "check-kv"}', "what check-kv --json wrote"),
        (
            json.dumps({"kind": "check-kv", "heat_map": [{**row(0, "key", [1.0, 2.0]), "starts": [0]}]}),
            "2 errors for 1",
        ),
        (json.dumps({"kind": "check-kv", "heat_map": [{**row(0, "key", [1.0]), "starts": [99]}]}), "outside its 16"),
    ],
)
def test_a_file_that_is_no_result_of_check_kv_is_refused(tmp_path, text, told):
    path = tmp_path / "kv.json"
    path.write_text(text)
    with pytest.raises(Mistake, match=told) as refused:
        read_heat(path, "--kv")
    assert str(refused.value).startswith(f"--kv {path}")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Mistake, match=r"--kv .*nowhere\.json: No such file"):
        read_heat(tmp_path / "nowhere.json", "--kv")


@pytest.mark.parametrize("numbers", [[], [0.0], [0.3], [1e-9, 1e3], [1e-4, 2e-4]])
def test_colours_rise_and_the_largest_error_has_the_last_one(numbers):
    edges = levels(numbers)
    assert edges == sorted(set(edges))
    assert len(edges) == 7
    assert level(0.0, edges) == 0
    if any(numbers):
        assert level(max(numbers), edges) >= 4


def test_a_cell_that_is_not_finite_has_a_colour_of_its_own_and_is_counted():
    panel = Panel(name="K", rows=(Row(label="0", starts=(0, 8), values=(0.1, None), tokens=16),))
    told = figure(heat_picture(Heat(panels=(panel,), is_match=False)))
    assert 'class="heat none"' in told
    assert "1 of 2 cells hold numbers that are not finite" in told


def test_neighbours_of_one_colour_are_drawn_as_one():
    values = (0.1,) * 128
    rows = tuple(Row(label=str(n), starts=tuple(range(128)), values=values, tokens=128) for n in range(80))
    told = figure(heat_picture(Heat(panels=(Panel(name="K", rows=rows),))))
    assert len(told) < 30_000


def test_findings_name_their_arrays_as_far_as_a_line_holds_them(tmp_path):
    found = [{"text": "stale", "arrays": ["a", "b", "c", "d", "e"]}, {"text": "swapped", "arrays": []}]
    heat = read_heat(written(tmp_path, findings=found), "--kv")
    assert heat.findings == ("stale [a, b, c and 2 more]", "swapped")


async def test_what_check_kv_writes_is_what_is_read(tmp_path):
    lots = np.random.default_rng(1)
    arrays = {f"layer_{layer}_{kind}": lots.normal(size=(2, 32, 4)) for layer in (0, 1) for kind in ("key", "value")}
    np.savez(tmp_path / "a.npz", **arrays)
    arrays["layer_1_value"][:, 16:] = 0.0
    arrays["layer_0_key"][0, 3, 0] = np.nan
    np.savez(tmp_path / "b.npz", **arrays)
    result = await run_command("check-kv", "--kv-dump-a", "a.npz", "--kv-dump-b", "b.npz", at=tmp_path)
    (tmp_path / "kv.json").write_text(to_json({"kind": "check-kv", **result.data}))

    heat = read_heat(tmp_path / "kv.json", "--kv")

    assert [(panel.name, len(panel.rows), panel.rows[0].tokens) for panel in heat.panels] == [
        ("K", 2, 32),
        ("V", 2, 32),
    ]
    zeroed = [value for first, _, value in heat.panels[1].rows[1].bins() if first >= 16]
    assert zeroed == pytest.approx([1.0] * len(zeroed))
    assert [first for first, _, value in heat.panels[0].rows[0].bins() if value is None] == [3]
    assert heat.is_match is False
    assert heat.findings
