"""A headless Chromium driven through its debugging pipe: the few commands that page tests need.

The DevTools protocol over two pipes is JSON with a zero byte after each message, so the standard library is
enough. It sets the width of a phone and the colour scheme, which the command line cannot.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")

_SECONDS = 60.0
_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36}
_CODES |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
"""Windows key codes, which Chromium wants beside the names of keys without a character."""


class Browser:
    """One tab. Every event that arrived is in `events`."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._write, self._read = to_browser, from_browser
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        # A page that nobody looks at would get no focus events.
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False, fragment: str = "") -> None:
        """Load a file at a width and in a colour scheme, and wait until it is there. `fragment` begins with #."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        url = path.resolve().as_uri() + fragment
        # Going from a fragment of a page to another of the same page would not load it again.
        if self.evaluate("location.href").split("#")[0] == url.split("#")[0]:
            self.send("Page.navigate", url="about:blank")
            while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
                self.events.append(self._receive())
            self.events.clear()
        self.send("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + _SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def key(self, key: str, shift: bool = False) -> None:
        """Press and release a key: `a`, `[`, `Enter`, `ArrowLeft`."""
        code = _CODES.get(key, ord(key.upper()) if len(key) == 1 and key.isalnum() else 0)
        stroke = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **stroke)
        self.send("Input.dispatchKeyEvent", type="keyUp", **stroke)

    def mouse(self, *points: tuple[float, float], press: bool = True) -> None:
        """Move along points of the viewport; with `press`, the button is held down from the first to the last."""
        button: dict[str, Any] = {"button": "left", "clickCount": 1} if press else {}
        for number, (x, y) in enumerate(points):
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, buttons=int(press and number > 0))
            if press and number == 0:
                self.send("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **button)
        if press:
            x, y = points[-1]
            self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **button)

    def complaints(self) -> list[dict[str, Any]]:
        """What the page logged or failed with since it was opened."""
        methods = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event.get("method") in methods]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened."""
        sent = (event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [request["request"]["url"] for request in sent]

    def picture(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"chromium said nothing for {_SECONDS:.0f} s"
            data = os.read(self._read, 1 << 20)
            assert data, "chromium closed its pipe"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium with a fresh profile and end it afterwards."""
    assert PROGRAM is not None
    its_input, to_browser = os.pipe()
    from_browser, its_output = os.pipe()
    # High numbers, so that putting them on 3 and 4 in the shell below overwrites neither.
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (its_input, its_output)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += [
            "--hide-scrollbars",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]
        # A sandboxed frame in a process of its own would be out of reach of this one session.
        flags += ["--disable-features=IsolateSandboxedIframes"]
        flags += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "bash", PROGRAM, *flags],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (its_input, its_output, *theirs):
            os.close(fd)
        try:
            yield Browser(to_browser, from_browser)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_browser)
            os.close(from_browser)
