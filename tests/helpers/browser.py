"""A headless Chromium, driven over its DevTools pipe: width, light or dark, facts, screenshots, requests."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
START = "import os, sys; a = sys.argv; os.dup2(int(a[1]), 3); os.dup2(int(a[2]), 4); os.execv(a[3], a[3:])"


def find_browser() -> str:
    """The path of a Chromium; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return found or pytest.skip("no chromium on PATH: apt-get install chromium")


class Browser:
    """One tab. Messages are JSON objects that end in a zero byte, on the browser's descriptors 3 and 4."""

    def __init__(self, profile: Path):
        mine, theirs = os.pipe(), os.pipe()
        pair = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (mine[0], theirs[1])]
        command = [
            sys.executable,
            "-c",
            START,
            *map(str, pair),
            find_browser(),
            *FLAGS,
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            command, pass_fds=pair, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for fd in (*pair, mine[0], theirs[1]):
            os.close(fd)
        self.write, self.read = os.fdopen(mine[1], "wb", 0), os.fdopen(theirs[0], "rb", 0)
        self.events, self.pending, self.number, self.session = [], b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self.write.close()
        self.read.close()
        self.process.terminate()
        self.process.wait(30)

    def show(self, file: Path, width: int = 1160, dark: bool = False) -> None:
        """Load a file and wait until it is drawn."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.size(width, 900)
        self.events.clear()
        self.call("Page.navigate", url=file.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.receive()

    def size(self, width: int, height: int) -> None:
        """Size of the window in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def fact(self, expression: str):
        """The value of a JavaScript expression on the page (its policy binds the page, not the pipe)."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def requests(self) -> list[str]:
        """Addresses that the page has asked for."""
        return [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]

    def call(self, method: str, **params) -> dict:
        """Send a command and wait for its answer; what happens meanwhile is kept in `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        self.write.write(json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def receive(self) -> dict:
        """The next message."""
        while b"\0" not in self.pending:
            part = self.read.read(1 << 20)
            assert part, "the browser has ended"
            self.pending += part
        text, self.pending = self.pending.split(b"\0", 1)
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message
