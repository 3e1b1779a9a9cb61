"""Chromium without a screen, driven over its debugging protocol: pages are opened, measured and listened to."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")
_LIMIT_S = 40


def chromium() -> str | None:
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


class Tab:
    """One page. `messages` are what the console, the log and uncaught errors said; `requests` every URL asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self._socket = socket
        self._session = ""
        self._numbers = itertools.count(1)
        self._loaded = False

    async def attach(self) -> None:
        context = await self.send("Target.createBrowserContext", disposeOnDetach=True)
        target = await self.send(
            "Target.createTarget", url="about:blank", browserContextId=context["browserContextId"]
        )
        told = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = told["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come before it are kept."""
        number = next(self._numbers)
        body: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            body["sessionId"] = self._session
        await self._socket.send_json(body)
        async with asyncio.timeout(_LIMIT_S):
            while True:
                told = await self._socket.receive_json()
                if told.get("id") == number:
                    assert "error" not in told, told
                    return dict(told["result"])
                self._hear(told)

    def _hear(self, told: dict[str, Any]) -> None:
        method, params = told.get("method"), told.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.messages.append(str([each.get("value") for each in params["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(str(params["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    async def open(self, page: Path, *, width: int = 1240, height: int = 900, is_dark: bool = False) -> None:
        """Opens it and waits until it is loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self._loaded = False
        await self.send("Page.navigate", url=page.as_uri())
        async with asyncio.timeout(_LIMIT_S):
            while not self._loaded:
                self._hear(await self._socket.receive_json())

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression (or of the promise that it is)."""
        told = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")


@asynccontextmanager
async def opened_tab(address: str) -> AsyncIterator[Tab]:
    """An empty page of a running browser, which shares nothing with its other pages."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        tab = Tab(socket)
        await tab.attach()
        yield tab


@asynccontextmanager
async def running_browser(browser: str, profile: Path) -> AsyncIterator[str]:
    """Where it listens."""
    process = await asyncio.create_subprocess_exec(
        browser, *_FLAGS, f"--user-data-dir={profile}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        address = await _address(process.stderr)
        complaints = asyncio.get_running_loop().create_task(process.stderr.read())  # a full pipe would stop it
        yield address
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
            with suppress(ConnectionError):
                await socket.send_json({"id": 0, "method": "Browser.close"})
        await complaints
    finally:
        try:
            async with asyncio.timeout(_LIMIT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _address(stream: asyncio.StreamReader) -> str:
    async with asyncio.timeout(_LIMIT_S):
        async for line in stream:
            found = _LISTENING.search(line)
            if found is not None:
                return found[1].decode()
    raise AssertionError("the browser ended before it told where it listens")
