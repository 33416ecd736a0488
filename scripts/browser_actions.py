"""Actions of drive_demo.py: start the page, open it in Chromium, drag on it, and read it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
TIMEOUT = 60_000  # ms
OVERFLOW = """() => [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.closest('.unseen')
    && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"""


@contextmanager
def serving(checkpoint: Path, *overrides: str) -> Iterator[str]:
    """Start the server for these models, and yield its address."""
    command = [sys.executable, "-m", "distilpose.demo", f"checkpoint={checkpoint}", *overrides, "port=0", "device=cpu"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    address = re.match(r"http://\S+", line)
    assert address, f"no address, but {line!r}"
    try:
        yield address[0]
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def opened(browser: Browser, address: str, errors_expected: bool = False, **options: Any) -> Iterator[Page]:
    """Open the page in a new window. At the end, assert that there is no console error and no request to another host."""
    context = browser.new_context(**options)
    page, errors, requests = context.new_page(), [], set()
    page.set_default_timeout(TIMEOUT)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: requests.add(request.url))
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    page.goto(address)
    expect(page.locator("#models")).not_to_be_empty(timeout=TIMEOUT)
    yield page
    expected = [
        text for text in errors if text.startswith("Failed to load resource: the server responded with a status of 4")
    ]
    unexpected = [text for text in errors if not (errors_expected and text in expected)]
    assert not unexpected, unexpected
    elsewhere = {url for url in requests if not url.startswith((address, "blob:" + address, "data:"))}
    assert not elsewhere, elsewhere
    context.close()


def passed(check: str) -> None:
    """Print that a check has passed."""
    print(f"ok   {check}", flush=True)


def wait_for_poses(page: Page, count: int) -> None:
    """Wait until a number of persons is shown, and no prediction is running."""
    pattern = re.compile(rf"^{count} persons? in [\d.]+ s$")
    expect(page.locator("#status")).to_have_text(pattern, timeout=TIMEOUT)
    expect(page.locator("#pictures g.stale")).to_have_count(0)


def corners(page: Page, box: list[float]) -> tuple[float, float, float, float]:
    """Convert a box from image pixels to left, top, right and bottom on the screen."""
    svg = page.locator("#pictures svg").first
    svg.scroll_into_view_if_needed()
    frame = svg.bounding_box()
    assert frame is not None
    unit = frame["width"] / float((svg.get_attribute("viewBox") or "").split()[2])
    x, y, width, height = (value * unit for value in box)
    return frame["x"] + x, frame["y"] + y, frame["x"] + x + width, frame["y"] + y + height


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag the mouse in several steps, as a person does."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=5)
    page.mouse.up()


def shown_box(page: Page) -> list[float]:
    """The selected box as drawn, in image pixels."""
    chosen = page.locator("#pictures svg").first.locator(".box.chosen")
    return [float(chosen.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")]


def colours(page: Page, canvas: str) -> int:
    """Number of colours in a canvas; 1 if nothing is drawn."""
    return page.evaluate(
        """name => { const c = document.getElementById(name);
        return new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size }""",
        canvas,
    )


def screenshot(page: Page, path: Path) -> None:
    """Save the whole page as a small PNG."""
    image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    image.quantize(256).save(path, optimize=True)
    assert path.stat().st_size < 300_000, f"{path} has {path.stat().st_size} bytes"
