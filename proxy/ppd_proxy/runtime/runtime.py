"""Composition root: builds every part, starts them in order, drains and stops them in the reverse order."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
import sys
import time
from ipaddress import ip_network
from typing import cast

from prometheus_client import CollectorRegistry

from ppd_core.conversation.conversations import EXPIRED_AT_ONCE, Conversations
from ppd_core.fleet.announced import Networks
from ppd_core.fleet.echoes import Echoes
from ppd_core.fleet.engine import Engine, Role
from ppd_core.fleet.fleet import Change, Fleet
from ppd_core.fleet.load import Load
from ppd_core.fleet.readings import Readings
from ppd_core.policy.prompt_pairs import PromptPairs
from ppd_proxy.admission.buffered import Buffered
from ppd_proxy.config.config import Config
from ppd_proxy.control import Control
from ppd_proxy.discovery.announce import Announcement, AnnouncementListener
from ppd_proxy.discovery.networks import own_networks
from ppd_proxy.keys import KeySource
from ppd_proxy.request.director import Director
from ppd_proxy.request.in_flight import InFlight
from ppd_proxy.request.legs import Legs
from ppd_proxy.request.planner import Planner
from ppd_proxy.request.prompt_watch import PromptWatch
from ppd_proxy.request.reader import Reader
from ppd_proxy.request.record import Record
from ppd_proxy.request.remember import Memory
from ppd_proxy.request.sampling import Sampling
from ppd_proxy.request.serving import Serving
from ppd_proxy.runtime.watching import Reins, baseline_engines, make_accuracy, open_journal
from ppd_proxy.server.accuracy import accuracy_blueprint
from ppd_proxy.server.admin import admin_blueprint
from ppd_proxy.server.app import make_app
from ppd_proxy.server.bodies import Bodies
from ppd_proxy.server.client_limits import ClientLimits
from ppd_proxy.server.data_path import App, DataPath
from ppd_proxy.server.engines import EngineDesk, engines_blueprint
from ppd_proxy.server.listening import BACKLOG, Listener, most_clients, open_files
from ppd_proxy.server.noting import Noting
from ppd_proxy.server.pass_through import Asking, Engines, pass_through_blueprint
from ppd_proxy.server.protocol import Door
from ppd_proxy.telemetry.log_writer import LogWriter
from ppd_proxy.telemetry.logs import RequestLog
from ppd_proxy.telemetry.metrics import Metrics
from ppd_proxy.telemetry.observer import Telemetry
from ppd_proxy.upstream.giving_up import give_up
from ppd_proxy.upstream.leg_request import parse_origin
from ppd_proxy.upstream.pool import Pool
from ppd_proxy.upstream.probe import Prober, ProbeResult
from ppd_proxy.upstream.scrape import Scraper
from ppd_proxy.upstream.shortage import Shortage
from ppd_shell.http import make_session
from ppd_shell.tasks import Tasks

log = logging.getLogger(__name__)

TICK_S = 1.0


class Runtime:
    """One running proxy. `start` inside a running loop, then `url` answers; `stop` ends everything it started."""

    def __init__(self, config: Config, log_writer: LogWriter | None = None) -> None:
        """`log_writer` takes the requests' lines in place of stderr."""
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(self._loop)
        self._session = make_session(connect_timeout_s=config.limits.connect_timeout_s, connections_per_engine=0)
        # Probes and scrapes must not wait for connections that requests take up.
        self._probe_session = make_session(connect_timeout_s=config.limits.connect_timeout_s)
        self._scrape_session = make_session(connect_timeout_s=config.limits.connect_timeout_s)
        self.registry = CollectorRegistry()
        self.fleet = Fleet(
            default_handoff=config.routing.handoff,
            trust_announced=config.discovery.trust_announced,
            max_announced=config.discovery.max_announced_engines,
        )
        self.load = Load()
        self.buffered = Buffered(config.server.max_buffered_bytes)
        self.conversations = Conversations(
            max_conversations=config.conversations.max_conversations, ttl_s=config.conversations.conversation_ttl_s
        )
        self.control = Control(
            config.routing.mode, PromptPairs(secrets.token_hex(4)), trust_direct=config.routing.trust_direct
        )
        self._echoes = Echoes()
        self._new_key = KeySource()
        self._readings = readings = _new_readings(config, self.fleet, self.load)
        self._metrics = Metrics(
            self.registry,
            readings=readings,
            engines=self.fleet.engines,
            inflight=lambda: self.load.requests,
            conversations=lambda: self.conversations.count,
            echoes_ids=self._echoes.echoes_ids,
            buffered_bytes=lambda: self.buffered.total_bytes,
            dropped_log_lines=lambda: log_writer.dropped_lines if log_writer is not None else 0,
        )
        self._request_log = RequestLog(log_writer or sys.stderr, config.server.log_level, self._loop.call_later)
        self._telemetry = Telemetry(self._metrics, self._request_log, time.time)  # noqa: TID251 - log lines only
        self._pool = Pool(
            self._loop,
            connect_timeout_s=config.limits.connect_timeout_s,
            buffered=self.buffered,
            max_answer_bytes=config.server.max_answer_bytes,
        )
        key = config.auth.engine_api_key
        self._prober = Prober(
            self._probe_session,
            self.fleet.engines,
            self._probed,
            interval_s=config.discovery.probe_interval_s,
            timeout_s=config.discovery.probe_timeout_s,
            api_key=key,
            shortage=Shortage(self._loop.time),
        )
        self.accuracy = make_accuracy(
            config.shadow,
            Reins(self.control, self.conversations, self.fleet),
            readings,
            self._session,
            self.registry,
            self._loop.time,
        )
        self.sampling = Sampling(self.accuracy.shadow if self.accuracy is not None else None, time.time)  # noqa: TID251 - samples say when they were taken
        self._listener: AnnouncementListener | None = None
        self._socket: socket.socket | None = None
        self._address: tuple[str, int] | None = None
        self._server = self._make_server()

    def _make_server(self) -> Listener:
        config, clock = self._config, self._loop.time
        key = config.auth.engine_api_key
        engine_authorization = f"Bearer {key}".encode() if key else None
        planner = Planner(
            self.fleet,
            self.load,
            self.control,
            clock,
            on_retry=self._telemetry.retried,
            on_changes=self._fleet_changed,
            give_up=self._give_up,
        )
        in_flight = InFlight(Tasks(self._loop))
        app = self._make_app(planner, engine_authorization)
        noting = Noting(app, self.control, self._telemetry, self._new_key, clock)
        director = self._make_director(planner, Legs(self._echoes, engine_authorization), in_flight)
        data_path = DataPath(noting, director, config.auth, Bodies(config.server, self.buffered), clock)
        side = config.server
        limits = ClientLimits(
            max_head_bytes=side.max_head_bytes,
            keep_alive_s=side.keep_alive_s,
            head_timeout_s=side.head_timeout_s,
            body_timeout_s=side.body_timeout_s,
            write_timeout_s=side.write_timeout_s,
        )
        door = Door(data_path, in_flight, limits, self._telemetry.client_stalled)
        return Listener(
            door,
            max_clients=most_clients(open_files()),
            drain_s=side.drain_s,
            grace_s=side.shutdown_grace_s,
            on_draining=self._end_is_near,
            on_unsent=self.buffered.see_unsent,
        )

    def _make_director(self, planner: Planner, legs: Legs, in_flight: InFlight) -> Director:
        config = self._config
        memory = Memory(self.conversations, self._loop.time)
        serving = Serving(
            planner,
            legs,
            PromptWatch(self.control, self._telemetry),
            memory,
            self.sampling,
            self._telemetry,
            self._new_key,
        )
        reader = Reader(memory, self.sampling.is_sampled, frozenset(config.routing.strip_field))
        return Director(reader, serving, self.sampling, self._pool, in_flight, config.limits, self._finished)

    def _make_app(self, planner: Planner, engine_authorization: bytes | None) -> App:
        config, clock = self._config, self._loop.time
        desk = EngineDesk(
            self.fleet,
            self.load,
            self.control.prompts,
            clock,
            on_changes=self._fleet_changed,
            probe=self._prober.probe,
        )
        engines = Engines(self.fleet, self.load, planner.budget, clock, on_retry=self._telemetry.retried)
        asking = Asking(
            self._session,
            self._new_key,
            engine_authorization=engine_authorization,
            max_answer_bytes=config.server.max_answer_bytes,
        )
        blueprints = (
            admin_blueprint(self.control, self.conversations, config.auth, clock),
            engines_blueprint(desk, config.auth),
            accuracy_blueprint(self.accuracy, config.auth, self.control, self._telemetry.prompts_trusted),
            pass_through_blueprint(engines, asking, config.auth, config.limits),
        )
        app = make_app(
            blueprints,
            control=self.control,
            fleet=self.fleet,
            registry=self.registry,
            max_body_bytes=config.server.max_body_bytes,
        )
        return cast("App", app)

    def _end_is_near(self) -> None:
        self.control.is_stopping = True

    def _finished(self, record: Record) -> None:
        self._readings.finished(record)
        self._telemetry.finished(record)

    def _fleet_changed(self, changes: tuple[Change, ...]) -> None:
        """`changes` are those that the fleet just gave back."""
        for change in changes:
            if change.what == "left":
                self._readings.forget(change.engine.id)
        self._telemetry.fleet_changed(changes)

    def _give_up(self, engine: Engine, now: float) -> None:
        give_up(self.fleet, self._pool, engine, now)

    @property
    def url(self) -> str:
        """Where clients reach the proxy on this host."""
        if not self._address:
            raise RuntimeError("the proxy is not started")
        host, port = self._address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def discovery_port(self) -> int:
        """The port of the announcement listener; 0 when it is off."""
        return self._listener.port if self._listener is not None else 0

    async def start(self) -> None:
        """Listen, learn the engines, and probe each of them once before the first request is taken.

        Raises OSError when an address cannot be listened on.
        """
        config = self._config
        self._socket = _listen(config.server.host, config.server.port)
        self._address = self._socket.getsockname()[:2]
        if config.discovery.discovery_port:
            await self.listen_for_announcements(config.discovery.discovery_port)
        roles: tuple[tuple[Role, tuple[str, ...]], ...] = (
            ("prefill", config.engines.prefill),
            ("decode", config.engines.decode),
            ("aggregated", config.engines.aggregated),
        )
        for role, urls in roles:
            for url in urls:
                self._fleet_changed(self.fleet.add_static(url, role, self._loop.time()))
        await self._prober.probe_all()
        self._tasks.spawn(self._prober.run(), name="probes")
        if config.metrics.scrape_interval_s > 0:
            scraper = Scraper(
                self._scrape_session,
                lambda: (*self.fleet.engines(), *baseline_engines(config.shadow)),
                self._readings.scraped,
                interval_s=config.metrics.scrape_interval_s,
                timeout_s=config.metrics.scrape_interval_s,
                api_key=config.auth.engine_api_key,
            )
            self._tasks.spawn(scraper.run(), name="scraping")
        if self.accuracy is not None:
            await open_journal(config.shadow, self.accuracy, time.time)  # noqa: TID251 - rows say when they were taken
            for work in self.accuracy.work():
                self._tasks.spawn(work, name="accuracy")
        self._tasks.spawn(self._tick(), name="expiry")
        self._server.start(self._socket)
        log.info("listening on %s mode=%s handoff=%s", self.url, self.control.mode, config.routing.handoff)

    async def listen_for_announcements(self, port: int) -> None:
        """Hear P2pNccl engines on `port` (0: any free one)."""
        settings = self._config.discovery
        allowed = Networks([ip_network(each) for each in settings.discovery_allow] or own_networks())
        self._listener = AnnouncementListener(
            settings.discovery_host,
            port,
            self._announced,
            on_rejected=self._metrics.announcement_rejected,
            allowed=allowed,
        )
        await self._listener.start()
        self._tasks.spawn(self._listener.run(), name="announcements")
        log.info("announcements are taken from %s", allowed)

    def ask_to_stop(self) -> None:
        """Take no new requests soon, let those in flight end; asked twice: end them now."""
        self._server.ask_to_stop()

    def heed_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self.ask_to_stop)
        self._loop.add_signal_handler(signal.SIGHUP, log.info, "HUP is ignored: settings are read at start only")

    async def serve_until_stopped(self) -> None:
        await self._server.ended.wait()

    async def stop(self) -> None:
        """End everything that was started, also after a failed `start`; what is in flight ends now."""
        await self._server.stop()
        if self._listener is not None:
            self._listener.stop()
        await self._tasks.stop()
        if self.accuracy is not None:
            await self.accuracy.close()
        self._request_log.flush()
        self._pool.close()
        for session in (self._session, self._probe_session, self._scrape_session):
            await session.close()
        if self._socket is not None:
            self._socket.close()

    def _probed(self, engine: Engine, result: ProbeResult, since: float) -> None:
        """Bytes of an answer say as much as a probe: a busy engine may be slow to answer its probes."""
        now = self._loop.time()
        if result != "late":
            changes = self.fleet.probed(engine.id, result == "good", now)
        elif self._pool.heard_at(parse_origin(engine.url)) >= since:
            changes = self.fleet.probed(engine.id, True, now)
        else:
            changes = self.fleet.late(engine.id, now)
        self._fleet_changed(changes)
        self._give_up(engine, now)

    def _announced(self, announcement: Announcement) -> None:
        objection = self.fleet.objection(announcement.http_address, announcement.zmq_address)
        if objection is not None:
            raise objection
        changes = self.fleet.announce(
            role=announcement.role,
            http_address=announcement.http_address,
            zmq_address=announcement.zmq_address,
            is_ppd=announcement.is_ppd,
            now=self._loop.time(),
        )
        self._fleet_changed(changes)
        for change in changes:
            if change.what == "joined":
                self._tasks.spawn(self._prober.probe(change.engine), name=f"first probe of {change.engine.id}")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._fleet_changed(self.fleet.expire(self._loop.time()))
            while self.conversations.expire(self._loop.time()) == EXPIRED_AT_ONCE:  # noqa: ASYNC110 - gives turns away
                await asyncio.sleep(0)
            self._telemetry.prompts_trusted(self.control.refresh_prompts(self.fleet.engines()), "an engine began anew")
            self._pool.close_stale()


def _new_readings(config: Config, fleet: Fleet, load: Load) -> Readings:
    return Readings(
        engines=fleet.engines,
        load=load,
        baselines=lambda: baseline_engines(config.shadow),
        kv_bytes_per_token=config.metrics.kv_bytes_per_token,
        is_scraping=config.metrics.scrape_interval_s > 0,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
