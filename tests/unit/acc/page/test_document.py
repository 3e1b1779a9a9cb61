import base64
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest
from tests.support.acc.page_reports import mixed, published, report, sample

from ppd_acc.data.report import Noise, Side, Totals
from ppd_acc.data.report_files import report_of
from ppd_acc.page.document import Extras, page_of
from ppd_acc.page.kv_picture import Heat, Panel, Row
from ppd_acc.page.samples import in_order
from ppd_acc.reports.annotations import Annotation

VOID = {"meta", "br", "input", "col", "link"}
FIGURES = ["shares", "survival", "margins", "hazard", "positions", "prompts", "differences", "lengths", "finishes"]


class Page(HTMLParser):
    """Refuses what is not closed, and collects what the tests ask for."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.attributes, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


def read(told, **extras):
    page = Page(page_of(told, Extras(**extras)).html)
    assert len(page.ids) == len(set(page.ids))
    return page


def all_cases():
    results = [{"sample_id": 1, "prompt": "p", "baseline_output": "a b", "target_output": "a c", "exact_match": False,
                "first_divergence_index": 1}]  # fmt: skip
    return {
        "empty": report(),
        "nothing known": report(totals=None, noise=Noise(), baseline=None, target=None, datasets=[], settings={}),
        "all equal": report([sample(f"s{number}") for number in range(20)]),
        "all errors": report([sample(f"s{number}", "error") for number in range(3)]),
        "one": report([sample("s", "real", at=0)], noise=Noise()),
        "no tokens": report([sample("s", tokens=0, baseline=Side(), target=Side(), compared_tokens=0, max_delta=None)]),
        "published": report_of(published(*results), "x"),
        "published, empty": report_of(published(), "x"),
        "mixed": mixed(),
        "negative and infinite": report([sample("s", "tie", max_delta=float("inf"), prompt_tokens=0)]),
    }


@pytest.mark.parametrize("name", all_cases())
def test_every_report_gives_a_page_that_is_closed_and_needs_nothing_else(name):
    page = read(all_cases()[name])
    assert page.tags.count("h1") == 1
    loading = [each for each in page.attributes if each[1] in ("src", "href", "srcset", "action", "style") or
               each[1].startswith("on")]  # fmt: skip
    assert [each for each in loading if not each[2].startswith("#")] == []
    assert "NaN" not in page.text
    assert not re.search(r"\binf\b", page.text)


def test_every_picture_says_what_it_shows_and_has_its_numbers_as_a_table():
    html = page_of(mixed(), Extras()).html
    for name in FIGURES[:-1]:
        figure = html[html.index(f'<figure id="{name}"') :]
        figure = figure[: figure.index("</figure>")]
        assert f'role="img" aria-labelledby="{name}-title {name}-description"' in figure
        assert re.search(f'<title id="{name}-title">[^<]+</title><desc id="{name}-description">[^<]+</desc>', figure)
        assert figure.count("<table>") == 1


def test_pictures_stand_in_one_order_and_those_with_nothing_to_draw_last():
    told = report([sample(f"s{number}") for number in range(20)])
    ids = [each for each in read(told).ids if each in FIGURES]
    assert ids == [*(each for each in FIGURES if each not in ("margins", "differences")), "margins", "differences"]


@pytest.mark.parametrize(
    ("told", "verdict", "headline"),
    [
        (report(), "inconclusive", "Nothing was compared"),
        (report([sample("a"), sample("b")]), "pass", "All 2 answers are equal"),
        (report([sample("a", "tie"), sample("b")]), "pass", "1 of 2 answers differs, by ties only"),
        (report([sample("a", "real"), sample("b", "error")]), "fail", "1 of 1 answers differs by more than noise"),
        (report([sample("a"), sample("b", "error")]), "partial", "All 1 answers are equal"),
        (report([sample("b", "error")]), "partial", "None of 1 samples could be compared"),
        (report([sample("a", "unclassified")]), "inconclusive", "1 of 1 answers differs, and it is not known why"),
        (report([sample("a", "real")], gate={"outcome": "pass", "reason": "under 5 %"}), "pass", "1 of 1 answers"),
        (report([sample("a")], gate={"outcome": "marvellous"}), "pass", "All 1 answers are equal"),
    ],
)
def test_the_headline_is_the_gates_outcome_or_that_of_a_run_without_a_limit(told, verdict, headline):
    page = page_of(told, Extras())
    assert page.headline.outcome == verdict
    assert page.headline.told.startswith(headline)
    assert f'class="verdict {verdict}"' in page.html


def test_the_gates_reason_is_given():
    told = report([sample("a", "real")], gate={"outcome": "fail", "reason": "1 of 1 is over the limit", "limit": 0.05})
    text = read(told).text
    assert "Gate: 1 of 1 is over the limit" in text
    assert "gate: limit" in text


def test_totals_stand_with_their_intervals_beside_the_noise_floor():
    text = read(mixed()).text
    # scipy.stats.binomtest(15, 57).proportion_ci(0.95, "wilson"), and of 1 in 20
    assert "15 of 57: 26.3\u00a0% (16.6\u00a0% to 39.0\u00a0%)" in text
    assert "1 of 20: 5.0\u00a0% (0.9\u00a0% to 23.6\u00a0%)" in text


def test_samples_that_differ_come_first_and_those_left_out_are_told():
    told = mixed(100)
    page = page_of(told, Extras(most_samples=7))
    assert page.shown == 7
    assert "7 of 100 samples are listed" in page.html
    order = [each.status for each in in_order(told.samples)]
    assert order == sorted(order, key=["real", "unclassified", "tie", "error", "equal"].index)
    assert re.findall('data-status="([a-z]+)"', page.html) == order[:7]


def test_long_texts_are_cut_and_many_of_them_do_not_make_the_page_large():
    side = Side(text="y" * 50_000 + "!" + "z" * 50_000, tokens=[1, 2])
    other = Side(text="y" * 50_000 + "?" + "z" * 50_000, tokens=[1, 3])
    long = [sample(f"s{n}", "real", at=1, prompt="x" * 100_000, baseline=side, target=other) for n in range(600)]
    page = page_of(report(long), Extras(most_samples=600))
    assert len(page.html) < 5_000_000
    assert 0 < page.shown < 600
    assert "48,500 characters" in page.html


def test_a_conversation_is_shown_with_its_roles():
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    text = read(report([sample("a", prompt=None, messages=messages)])).text
    assert "system: be brief" in text
    assert "'text': 'hi'" in text


def test_forced_figures_margins_and_chance_are_in_a_samples_details():
    text = read(report([sample("a", "real")])).text
    for part in ("3 nats", "1.5 nats", "4.5 nats", "8e\u22124", "90.00 %", "1.7 nats"):
        assert part in text


def test_a_bound_is_called_one():
    told = sample("a", "real")
    told.flip = msgspec.structs.replace(told.flip, is_bound=True)
    assert "\u2265 4.5 nats" in read(report([told])).text


def test_notes_and_labels_stand_with_their_sample():
    notes = {"a": Annotation(sample_id="a", note="<seen> again", labels=["kv"])}
    page = page_of(report([sample("a", "real"), sample("b")]), Extras(annotations=notes))
    assert page.html.count("&lt;seen&gt; again") == 2  # in the row and in its details
    assert '<span class="label">kv</span>' in page.html


def test_only_the_pages_own_script_and_style_may_run():
    html = page_of(mixed(), Extras()).html
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', html)
    for kind, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} &#x27;sha256-{digest}&#x27;" in policy
    assert "default-src &#x27;none&#x27;" in policy


def test_a_kv_check_adds_its_map():
    rows = (Row(label="0", starts=(0, 16), values=(0.01, 0.5), tokens=32),)
    heat = Heat(panels=(Panel(name="V", rows=rows),), is_match=False, findings=("block 1 is stale",))
    text = read(mixed(), heat=heat).text
    assert "check-kv finds that the dumps differ. The largest relative error is 0.5 (V, layer 0)." in text
    assert "block 1 is stale" in text


def test_totals_of_the_report_are_taken_over():
    told = report([sample("a")])
    told.totals = msgspec.structs.replace(told.totals, confidence=0.99)
    assert isinstance(told.totals, Totals)
    assert "99\u00a0% interval" in read(told).text


def test_a_side_whose_text_was_not_kept_says_so():
    told = sample("a", "real", at=1, baseline=Side(tokens=[1, 2]), target=Side(text="so it is", tokens=[1, 3]))
    text = read(report([told])).text
    assert "(the text was not kept)" in text
    assert "so it is" in text


@pytest.mark.parametrize(
    ("reasons", "finding"),
    [
        ([("stop", "stop"), ("length", "length")], "All 2 pairs ended for the same reason."),
        ([("stop", "stop"), ("stop", "length"), (None, "stop")], "1 of 2 pairs ended for different reasons."),
        ([(None, "stop"), (None, None)], "No engine told why its answers ended, or only one did."),
    ],
)
def test_a_finish_reason_that_was_not_told_is_no_different_one(reasons, finding):
    samples = [
        sample(f"s{n}", baseline=Side(tokens=[1], finish_reason=one), target=Side(tokens=[1], finish_reason=other))
        for n, (one, other) in enumerate(reasons)
    ]
    assert finding in read(report(samples)).text
