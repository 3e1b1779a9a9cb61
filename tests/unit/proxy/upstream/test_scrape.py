import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ppd_core.fleet.engine import Engine
from ppd_proxy.upstream import scrape
from ppd_proxy.upstream.scrape import Scraper
from ppd_shell.http import make_session
from ppd_wire.metrics.scraped import UNKNOWN, EngineFigures

LIMIT_S = 10.0
RUNNING = 'vllm:num_requests_running{engine="0"} %d\n'


class FakeEngine:
    """Answers `/metrics` with what the test sets."""

    def __init__(self):
        self.text, self.status, self.requests = RUNNING % 1, 200, []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def start(self):
        app = web.Application()
        app.router.add_get("/metrics", self.metrics)
        self.server = TestServer(app)
        await self.server.start_server()
        url = str(self.server.make_url("")).rstrip("/")
        self.engine = Engine(
            id=url.removeprefix("http://"), url=url, role="decode", handoff="nixl", state="up", source="static"
        )

    async def metrics(self, request):
        self.requests.append(request)
        await self.may_answer.wait()
        return web.Response(text=self.text, status=self.status)


@pytest.fixture
async def engines():
    fakes = [FakeEngine(), FakeEngine()]
    for fake in fakes:
        await fake.start()
    yield fakes
    for fake in fakes:
        fake.may_answer.set()
        await fake.server.close()


@pytest.fixture
async def session():
    async with make_session() as session:
        yield session


class Readings:
    def __init__(self):
        self.all = []
        self.came = asyncio.Event()

    def __call__(self, engine, figures, now):
        self.all.append((engine.id, figures))
        self.came.set()

    def of(self, fake):
        return [figures for engine_id, figures in self.all if engine_id == fake.engine.id]


def scraper(session, engines, readings, **options):
    settings = {"interval_s": 1.0, "timeout_s": LIMIT_S, "api_key": None} | options
    return Scraper(session, lambda: [fake.engine for fake in engines], readings, **settings)


async def test_all_engines_are_asked_at_the_same_time(session, engines):
    readings = Readings()
    first, second = engines
    first.may_answer.clear()
    second.text = RUNNING % 2
    async with asyncio.timeout(LIMIT_S):
        scraping = asyncio.get_running_loop().create_task(scraper(session, engines, readings).scrape_all())
        await readings.came.wait()
        assert readings.all == [(second.engine.id, EngineFigures(running=2))]
        first.may_answer.set()
        await scraping
    assert readings.of(first) == [EngineFigures(running=1)]


async def test_an_engine_is_not_asked_twice_within_a_second(session, engines):
    readings = Readings()
    scrape = scraper(session, engines, readings)
    await scrape.scrape_all()
    await scrape.scrape_all()
    assert [len(fake.requests) for fake in engines] == [1, 1]
    assert len(readings.all) == 2


async def test_an_engine_that_joined_is_asked_though_others_were_just_asked(session, engines):
    readings = Readings()
    known = engines[:1]
    scrape = scraper(session, known, readings)
    await scrape.scrape_all()
    known.append(engines[1])
    await scrape.scrape_all()
    assert [len(fake.requests) for fake in engines] == [1, 1]


@pytest.mark.parametrize("break_it", ["status", "text", "gone", "silent"])
async def test_a_failed_scrape_makes_the_figures_unknown(session, engines, break_it, caplog):
    readings, broken = Readings(), engines[0]
    scrape = scraper(session, engines[:1], readings, timeout_s=0.2 if break_it == "silent" else LIMIT_S)
    if break_it == "status":
        broken.status = 500
    elif break_it == "text":
        broken.text = "vllm:num_requests_running{ oops\n"
    elif break_it == "gone":
        await broken.server.close()
    else:
        broken.may_answer.clear()
    async with asyncio.timeout(LIMIT_S):
        await scrape.scrape_all()
    assert readings.of(broken) == [UNKNOWN]
    assert f"scrape failed engine={broken.engine.id}" in caplog.text


@pytest.mark.parametrize("line", [RUNNING % 1, "python_info 1\n"], ids=["read", "not read"])
async def test_a_page_beyond_any_engines_size_makes_the_figures_unknown(session, engines, line, caplog):
    readings, large = Readings(), engines[0]
    large.text = line * (9 * 2**20 // len(line))
    await scraper(session, [large], readings).scrape_all()
    assert readings.of(large) == [UNKNOWN]
    assert "the page has more than" in caplog.text


async def test_a_page_is_parsed_in_a_thread(session, engines, monkeypatch):
    loops = []

    def read(page):
        try:
            loops.append(asyncio.get_running_loop())
        except RuntimeError:
            loops.append(None)
        return UNKNOWN

    monkeypatch.setattr(scrape, "read", read)
    await scraper(session, engines[:1], Readings()).scrape_all()
    assert loops == [None]  # the loop's own thread has one


async def test_a_redirect_is_not_followed(session, engines):
    readings, moved = Readings(), engines[0]

    async def redirect(request):
        raise web.HTTPFound(f"{engines[1].engine.url}/metrics")

    moved.metrics = redirect
    app = web.Application()
    app.router.add_get("/metrics", redirect)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        moved.engine = Engine(id="moved:1", url=url, role="decode", handoff="nixl", state="up", source="static")
        await scraper(session, [moved], readings).scrape_all()
    assert readings.all == [("moved:1", UNKNOWN)]
    assert engines[1].requests == []


async def test_the_engine_key_is_sent_only_where_one_is_set(session, engines):
    await scraper(session, engines[:1], Readings(), api_key="secret").scrape_all()
    await scraper(session, engines[1:], Readings()).scrape_all()
    assert engines[0].requests[0].headers["Authorization"] == "Bearer secret"
    assert "Authorization" not in engines[1].requests[0].headers


async def test_running_asks_again_and_again_until_cancelled(session, engines, monkeypatch):
    monkeypatch.setattr(scrape, "MIN_INTERVAL_S", 0.2)
    again = asyncio.Event()
    readings = []

    def on_figures(engine, figures, now):
        readings.append(now)
        if len(readings) == 2:
            again.set()

    settings = {"interval_s": 0.01, "timeout_s": LIMIT_S, "api_key": None}
    often = Scraper(session, lambda: [engines[0].engine], on_figures, **settings)
    running = asyncio.get_running_loop().create_task(often.run())
    async with asyncio.timeout(LIMIT_S):
        await again.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert readings[1] - readings[0] >= 0.15  # never more often than that, whatever is configured


def test_an_interval_that_means_off_is_refused():
    with pytest.raises(ValueError, match="interval_s is 0"):
        Scraper(None, list, print, interval_s=0, timeout_s=1.0, api_key=None)
