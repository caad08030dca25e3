"""Owns a headless Chromium and its tabs, for a page under test: what it asked for, complained of, and shows.

It is driven by the DevTools protocol over a WebSocket on loopback, has a profile of its own, and ends with its block.
Each tab has cookies and a cache of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

DEADLINE = 120.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-port=0", "--remote-debugging-address=127.0.0.1",
)  # fmt: skip
TROUBLE = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Audits.issueAdded"}

OVERFLOW = """(() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  const wide = document.documentElement.clientWidth;
  const past = [...document.querySelectorAll('svg[role=img] text, h1, h2, p, dd, pre')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > wide + .5 || box.left < -.5) && !e.closest('.scroll');
  });
  return {wide, scrolls: document.documentElement.scrollWidth, past: past.map(e => e.textContent.slice(0, 40))};
})()"""

CONTRAST = r"""(() => {
  const parse = c => (c.match(/[\d.]+/g) || []).map(Number);
  const light = c => { const [r, g, b] = parse(c).map(v => { v /= 255;
    return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    const p = parse(c); if (p.length < 4 || p[3] > 0) return c } return 'rgb(255, 255, 255)' };
  document.querySelectorAll('details').forEach(d => d.open = true);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = []; let seen = 0;
  for (let n; n = texts.nextNode();) {
    const e = n.parentElement;
    if (!n.data.trim() || !e.getClientRects().length || e.closest('title, desc')) continue;
    seen++;
    const a = light(e.closest('svg') ? getComputedStyle(e).fill : getComputedStyle(e).color), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push([n.data.slice(0, 40), ratio]);
  }
  return {seen, poor};
})()"""

SMALLEST = """Math.min(...[...document.querySelectorAll('text, p, td, th, dd, dt, li')]
  .filter(e => e.getClientRects().length).map(e => parseFloat(getComputedStyle(e).fontSize)))"""


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def find() -> str | None:
    """The path of a Chromium, or ``None``."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A Chromium that runs for a ``with`` block."""

    def __init__(self, program: str, profile: Path) -> None:
        self._program = program
        self._profile = profile
        self.endpoint = ""

    def __enter__(self) -> Self:
        self._profile.mkdir()
        said = self._profile / "said.txt"
        with said.open("wb") as stderr:
            self._process = subprocess.Popen(
                [self._program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        end = time.monotonic() + DEADLINE
        while (found := re.search(rb"^DevTools listening on (\S+)\s", said.read_bytes(), re.MULTILINE)) is None:
            if self._process.poll() is not None or time.monotonic() > end:
                self._end()
                raise RuntimeError("Chromium does not listen:\n" + said.read_text(errors="replace")[-2000:])
            time.sleep(0.02)
        self.endpoint = found[1].decode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Browser:
    """One tab of a Chromium. ``requests`` and ``troubles`` collect what happens in it."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._tab: str | None = None
        self.requests: list[str] = []
        self.troubles: list[str] = []

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            self._socket = await session.ws_connect(self._chromium.endpoint, max_msg_size=0)
            stack.push_async_callback(self._socket.close)
            listener = asyncio.create_task(self._listen())
            stack.push_async_callback(_cancel, listener)
            context = (await self.call("Target.createBrowserContext", disposeOnDetach=True))["browserContextId"]
            made = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
            attached = await self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
            self._tab = attached["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log", "Audits", "Accessibility"):
                await self.call(f"{domain}.enable")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            if waiting := self._answers.pop(said.get("id", 0), None):
                if not waiting.done():
                    waiting.set_result(said)
            elif said.get("method") == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            elif said.get("method") == "Page.loadEventFired":
                self._loaded.set()
            elif said.get("method") in TROUBLE:
                self.troubles.append(str(said["params"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask for one thing; raises what the browser answers as an error."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        tab = {"sessionId": self._tab} if self._tab else {}
        await self._socket.send_json({"id": self._number, "method": method, "params": params, **tab})
        async with asyncio.timeout(DEADLINE):
            said = await answer
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, page: Path) -> None:
        """Load a file and wait until all of it is."""
        await self.visit(page.as_uri())

    async def visit(self, url: str) -> None:
        """Load a URL and wait until all of it is."""
        self._loaded.clear()
        self.requests.clear()
        self.troubles.clear()
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(DEADLINE):
            await self._loaded.wait()

    async def look(self, width: int, theme: str = "light", height: int = 900) -> None:
        """Make the window so many pixels wide, and the system's theme ``light`` or ``dark``."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    async def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise RuntimeError(str(said["exceptionDetails"]))
        return said["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The value of an expression in the page, once it is true."""
        async with asyncio.timeout(DEADLINE):
            while not (value := await self.ask(expression)):
                await asyncio.sleep(0.05)
        return value

    async def press(self, key: str, code: int) -> None:
        """Press and let go one key."""
        for kind in ("rawKeyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    async def photograph(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        said = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(said["data"]))
