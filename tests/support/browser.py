"""A headless Chromium, driven through the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "these tests click through pages in Chromium, which is not here: apt-get install chromium"

DESK, PHONE = (1280, 900), (390, 844)
Theme = Literal["light", "dark"]


class Browser:
    """One browser with one page at a time."""

    def __init__(self, folder: Path) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        assert program is not None, INSTALL
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += ["--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run"]
        options += [f"--user-data-dir={folder / 'profile'}", "about:blank"]
        read_end, self._write = os.pipe()
        self._read, write_end = os.pipe()

        def adopt() -> None:  # the protocol's pipe is on 3 and 4
            a, b = os.dup(read_end), os.dup(write_end)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self._process = subprocess.Popen(
            [program, *options],
            pass_fds=(3, 4),
            preexec_fn=adopt,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_end)
        os.close(write_end)
        self._rest = b""
        self._last = 0
        self._session: str | None = None
        self._context: str | None = None
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        """Ends the browser and the processes it started, which write to its profile until then."""
        with contextlib.suppress(AssertionError, OSError, subprocess.TimeoutExpired):
            self._session = None
            self.call("Browser.close", timeout=5)
            self._process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, timeout: float = 180, **parameters: Any) -> dict[str, Any]:
        """Returns the answer to one command of the protocol."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            found = self._next(end, method)
            if found.get("id") == message["id"]:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            if "method" in found:
                self.events.append(found)

    def _next(self, end: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium did not answer {what} in time"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def open(self, address: str, size: tuple[int, int] = DESK, theme: Theme = "light") -> None:
        """Opens an address in a tab without a past and waits until it is loaded."""
        self._session = None
        if self._context is not None:
            self.call("Target.disposeBrowserContext", browserContextId=self._context)
        context = self.call("Target.createBrowserContext")["browserContextId"]
        self._context = context
        blank = {"url": "about:blank", "browserContextId": context}
        target = self.call("Target.createTarget", **blank)["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Performance.enable", timeDomain="threadTicks")
        self.resize(size)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def resize(self, size: tuple[int, int]) -> None:
        """Gives the page a width and a height."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def run(self, expression: str, seconds: float = 180) -> Any:
        """Returns what JavaScript evaluates to, as JSON; waits for a promise."""
        options = {"returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", seconds, expression=expression, **options)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> Any:
        """Returns what an expression gives as soon as it is true; fails after some seconds."""
        end = time.monotonic() + seconds
        plain = f"(v => v instanceof Node ? true : v)({expression})"
        while not (found := self.run(plain)):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.02)
        return found

    def busy(self) -> float:
        """Returns the seconds of its processor that the page has used so far."""
        found = {m["name"]: m["value"] for m in self.call("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"])

    def click(self, selector: str, n: int = 0) -> None:
        """Clicks the n-th element that matches, where the mouse would."""
        box = self.run(
            f"(() => {{ const e = document.querySelectorAll({json.dumps(selector)})[{n}]; "
            "if (!e) return null; e.scrollIntoView({block: 'center'}); "
            "const r = e.getClientRects()[0]; "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        assert box is not None, f"nothing matches {selector} [{n}]"
        self.click_at(*box)

    def click_at(self, x: float, y: float) -> None:
        """Clicks a point of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Replaces the text of a field, as typing would."""
        self.click(selector)
        self.run("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Presses a key by its name, such as "Tab" or "ArrowRight"."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38}
        codes |= {"ArrowRight": 39, "ArrowDown": 40}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=codes.get(key, 0), **more,
            )  # fmt: skip

    def picture(self, path: Path | None = None, *, whole: bool = False) -> bytes:
        """Returns the page as PNG, as much of it as the window shows, and writes it to a file."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        data = base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def requests(self) -> list[str]:
        """Returns the addresses that were asked for, but for the page's own, data and blobs."""
        self.run("0")
        sent = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        found = [s["request"]["url"] for s in sent if s.get("type") != "Document"]
        return [url for url in found if not url.startswith(("data:", "blob:"))]

    def complaints(self) -> list[str]:
        """Returns exceptions and errors, refusals of the content security policy among them."""
        self.run("0")
        thrown = [
            e["params"]["exceptionDetails"].get("exception", {}).get("description", "exception")
            for e in self.events
            if e["method"] == "Runtime.exceptionThrown"
        ]
        logged = [
            e["params"]["entry"]["text"]
            for e in self.events
            if e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"
        ]
        return thrown + logged

    def names(self) -> list[str]:
        """Returns selectors of controls that a screen reader has no name for."""
        self.call("Accessibility.enable")
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        controls = {"button", "textbox", "searchbox", "slider", "combobox", "spinbutton", "link"}
        return [
            node["role"]["value"]
            for node in nodes
            if node.get("role", {}).get("value") in controls
            and not node.get("name", {}).get("value")
        ]

    def too_wide(self) -> list[str]:
        """Returns elements that stick out of the window, but for those that scroll."""
        found: list[str] = self.run(
            "[...document.querySelectorAll('.bitlens *')].filter(e => e.getClientRects().length && "
            "e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, pre, svg, "
            ".hidden')).map(e => e.outerHTML.slice(0, 90))"
        )
        return found


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the length of a `with` block. Fails, saying how to install it, without one."""
    # A killed process of the browser may still be letting go of its profile.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder))
        try:
            yield browser
        finally:
            browser.close()
