"""The report page in a real browser: what it says, loads and runs, and whether it can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.acc.page_reports import mixed, published, report, sample
from tests.support.browser import chromium, opened_tab, running_browser

from ppd_acc.data.report import Noise, Report, Side
from ppd_acc.data.report_files import report_of
from ppd_acc.page.document import Extras, page_of
from ppd_acc.page.kv_picture import Heat, Panel, Row

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium: install chromium, or set CHROMIUM"),
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),  # in which the browser is listened to
]

EVIL = "</script></style><img src=x onerror=alert(1)><script>alert(2)</script>\"'&<b>"
OVERLAPS = """
[...document.querySelectorAll('figure > svg')].flatMap((svg) => {
  const box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map((node) => [node.textContent, node.getBoundingClientRect()]);
  const found = [];
  texts.forEach(([name, one], at) => {
    const isCut = one.left < box.left - 1 || one.right > box.right + 1 || one.bottom > box.bottom + 1;
    if (isCut) found.push(`${svg.parentNode.id}: ${name} is cut`);
    for (const [other, two] of texts.slice(at + 1)) {
      const across = Math.min(one.right, two.right) - Math.max(one.left, two.left);
      const down = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
      if (across > 0.5 && down > 2.5) found.push(`${svg.parentNode.id}: ${name} on ${other}`);
    }
  });
  return found;
})
"""
CONTRASTS = """
(() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const parts = [0.2126, 0.7152, 0.0722];
  const light = (colour) => parts.reduce((sum, part, at) => sum + part * linear(colour[at] / 255), 0);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const told = {};
  const chosen = 'body,.verdict,.reason,.card small,.finding,.note,.tick,caption,.status,mark,.same,dt'.split(',');
  for (const selector of chosen) {
    for (const node of document.querySelectorAll(selector)) {
      const style = getComputedStyle(node);
      const ink = parse(node instanceof SVGElement ? style.fill : style.color);
      const [one, two] = [light(ink), light(ground(node))].sort((a, b) => b - a);
      told[selector] = Math.min(told[selector] ?? 99, (one + 0.05) / (two + 0.05));
    }
  }
  return told;
})()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory):
    program = chromium()
    assert program is not None
    async with running_browser(program, tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser):
    async with opened_tab(browser) as opened:
        yield opened


def written(folder: Path, told: Report, extras: Extras | None = None) -> Path:
    path = folder / "report.html"
    path.write_text(page_of(told, extras or Extras()).html, encoding="utf-8")
    return path


def heat() -> Heat:
    rows = tuple(
        Row(
            label=str(layer),
            starts=(0, 16, 32),
            values=(0.001 * (layer + 1), None if layer == 3 else 0.4, 0.0),
            tokens=48,
        )
        for layer in range(40)
    )
    return Heat(panels=(Panel(name="K", rows=rows), Panel(name="V", rows=rows)), is_match=False, findings=("stale",))


def cases() -> dict[str, Report]:
    results = [
        {
            "sample_id": number, "prompt": "why " * (number + 1), "baseline_output": "so it is",
            "target_output": "so it was" if number % 3 else "so it is", "exact_match": number % 3 == 0,
            "first_divergence_index": 2 if number % 3 else None,
        }
        for number in range(30)
    ]  # fmt: skip
    long = [
        sample(f"s{n}", "tie" if n % 9 else "real", tokens=900, at=n % 900, prompt_tokens=10**5 + 3 ** (n % 12))
        for n in range(120)
    ]
    return {
        "mixed": mixed(),
        "empty": report(),
        "equal": report([sample(f"s{number}") for number in range(20)]),
        "one": report([sample("s", "real", at=0)], noise=Noise()),
        "errors": report([sample(f"s{number}", "error") for number in range(4)]),
        "published": report_of(published(*results), "published"),
        "long": report(long),
    }


@pytest.mark.parametrize("name", cases())
async def test_a_page_loads_nothing_complains_about_nothing_and_can_be_read(tab, tmp_path, name):
    page = written(tmp_path, cases()[name], Extras(heat=heat()))

    await tab.open(page)

    assert tab.messages == []
    assert tab.requests == [page.as_uri()]
    assert await tab.run(OVERLAPS) == []
    assert await tab.run("document.querySelector('h1').textContent.length") > 0


@pytest.mark.parametrize("is_dark", [False, True])
async def test_text_stands_out_in_light_and_dark(tab, tmp_path, is_dark):
    page = written(tmp_path, mixed())
    await tab.open(page, is_dark=is_dark)
    told = await tab.run(CONTRASTS)
    assert len(told) == 12
    assert {name: value for name, value in told.items() if value < 4.5} == {}
    ground = await tab.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(15, 20, 26)") is is_dark


async def test_what_a_report_holds_is_shown_as_text_and_never_run(tab, tmp_path):
    side = Side(text=EVIL + " a", tokens=[EVIL, " a"], finish_reason=EVIL, request_id=EVIL)
    other = Side(text=EVIL + " b", tokens=[EVIL, " b"], finish_reason="stop")
    evil = sample(EVIL, "real", at=1, prompt=EVIL, tags=[EVIL], metadata={EVIL: EVIL}, baseline=side, target=other)
    told = report(
        [evil], settings={EVIL: {EVIL: EVIL}}, gate={"outcome": "fail", "reason": EVIL, EVIL: EVIL}, tool=EVIL
    )
    page = written(tmp_path, told, Extras(title=EVIL, notes=[EVIL], files=[(EVIL, EVIL)]))

    await tab.open(page)

    assert (tab.dialogs, tab.messages, tab.requests) == ([], [], [page.as_uri()])
    assert await tab.run("document.images.length + document.querySelectorAll('body b[onerror], iframe').length") == 0
    assert await tab.run("document.scripts.length") == 1
    assert await tab.run("document.querySelector('.eyebrow').textContent") == EVIL
    assert await tab.run("document.querySelector('.sample .prompt').textContent") == EVIL
    assert await tab.run("document.querySelector('.sample mark').textContent") == " a"


async def test_a_script_that_got_into_the_page_would_not_run(tab, tmp_path):
    page = written(tmp_path, mixed())
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</main>", "</main><script>document.title = 'broken'</script><img src=//x.test/a>"))
    await tab.open(page)
    assert await tab.run("document.title") != "broken"
    assert [url for url in tab.requests if not url.startswith("file:")] == []


async def test_samples_are_filtered_searched_and_sorted(tab, tmp_path):
    told = mixed()
    await tab.open(written(tmp_path, told))
    shown = (
        "[...document.querySelectorAll('.sample')].filter((node) => !node.hidden).map((node) => node.dataset.status)"
    )
    fire = "dispatchEvent(new Event('input', {bubbles: true}))"
    assert len(await tab.run(shown)) == len(told.samples)

    await tab.run(
        f"(() => {{const box = document.querySelector('input[value=equal]'); box.checked = false; box.{fire}}})()"
    )
    assert "equal" not in await tab.run(shown)
    await tab.run(
        f"(() => {{const box = document.querySelector('[type=search]'); box.value = 'OUT OF memory'; box.{fire}}})()"
    )
    assert set(await tab.run(shown)) == {"error"}
    assert "shown" in await tab.run("document.querySelector('output').textContent")

    await tab.run(f"(() => {{const box = document.querySelector('select'); box.value = 'prompt'; box.{fire}}})()")
    lengths = await tab.run(
        "[...document.querySelectorAll('.sample')].map((node) => Number(node.dataset.prompt ?? -1))"
    )
    assert lengths == sorted(lengths, reverse=True)


async def test_a_point_leads_to_its_sample(tab, tmp_path):
    await tab.open(written(tmp_path, mixed()))
    address = await tab.run("document.querySelector('#margins a:last-of-type').getAttribute('href')")
    await tab.run(
        f"new Promise((done) => {{addEventListener('hashchange', () => done(1)); location.hash = '{address}'}})"
    )
    assert await tab.run(f"document.querySelector('{address}').open") is True


async def test_the_page_works_without_its_script(tab, tmp_path):
    await tab.send("Emulation.setScriptExecutionDisabled", value=True)
    page = written(tmp_path, mixed())
    await tab.open(page)
    root = await tab.send("DOM.getDocument", depth=-1)
    told = await tab.send("DOM.getOuterHTML", nodeId=root["root"]["nodeId"])
    assert 'id="controls" hidden' in told["outerHTML"]
    assert told["outerHTML"].count('class="sample"') == 60
    assert tab.messages == []


@pytest.mark.parametrize("width", [380, 800, 1240])
async def test_nothing_sticks_out_at_the_side(tab, tmp_path, width):
    await tab.open(written(tmp_path, cases()["long"], Extras(heat=heat())), width=width)
    await tab.run("document.querySelectorAll('details').forEach((node) => {node.open = true})")
    assert await tab.run("document.scrollingElement.scrollWidth") <= width


async def test_a_page_of_ten_thousand_samples_opens_quickly(tab, tmp_path):
    page = written(tmp_path, mixed(10_000))
    assert page.stat().st_size < 5_000_000
    await tab.open(page)
    load_ms = await tab.run("performance.getEntriesByType('navigation')[0].loadEventStart")
    assert load_ms < 5000
    assert await tab.run("document.querySelectorAll('.sample').length") == 500


async def test_the_page_prints(tab, tmp_path):
    await tab.open(written(tmp_path, mixed()), is_dark=True)
    await tab.send(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert await tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert await tab.run("getComputedStyle(document.querySelector('#controls')).display") == "none"
