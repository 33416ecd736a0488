"""Race conditions in the page's scripts, in Chromium: two images, two fingers, two clicks."""

from __future__ import annotations

import importlib.util
import shutil
import threading
import time

import pytest
import uvicorn
from pictures import encoded

from distilpose.webpage.app import make_app
from distilpose.webpage.limits import Limits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("chromium") is None or importlib.util.find_spec("playwright") is None,
        reason="no Chromium or no playwright",
    ),
]
EVENT = """(svg, [kind, pointerId, x, y]) => {
const frame = svg.getBoundingClientRect();
const [clientX, clientY] = [frame.left + x, frame.top + y];
svg.setPointerCapture = () => {};
svg.dispatchEvent(new PointerEvent(kind, { pointerId, clientX, clientY, button: 0, bubbles: true })) }"""
BOXES = "boxes => boxes.map(box => Number(box.getAttribute('x')))"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def page(browser, poses):
    server = uvicorn.Server(
        uvicorn.Config(make_app(poses, Limits()), port=0, log_level="error", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    opened = browser.new_page(bypass_csp=True)  # wait_for_function needs it
    opened.goto(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/")
    opened.wait_for_function("document.getElementById('models').textContent")
    yield opened
    opened.close()
    server.should_exit = True
    thread.join(20)


def give(page, *sizes):
    """Choose images of these heights and widths in quick succession."""
    for size in sizes:
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": encoded("PNG", size)})


def wait_for_box(page, *, width):
    page.wait_for_function(f"document.querySelector('#pictures svg').getAttribute('viewBox') === '0 0 {width} 90'")


def test_the_later_image_stays(page):
    slow = "const decode = Image.prototype.decode; let first = true; Image.prototype.decode = async function () {"
    slow += " if (first) { first = false; await new Promise(done => setTimeout(done, 500)); window.late = true }"
    page.evaluate(f"() => {{ {slow} return decode.call(this) }} }}")
    give(page, (90, 100), (90, 120))
    page.wait_for_function("window.late")
    page.wait_for_timeout(200)
    assert page.locator("#pictures svg").first.get_attribute("viewBox") == "0 0 120 90"


def test_a_second_finger_and_a_box_deleted_while_it_moves(page):
    give(page, (90, 120))
    wait_for_box(page, width=120)
    page.uncheck("#auto")
    svg = page.locator("#pictures svg").first
    unit = svg.bounding_box()["width"] / 120
    shown = svg.locator("rect.box")

    def touch(kind, pointer, x):
        svg.evaluate(EVENT, [kind, pointer, x * unit, 45 * unit])

    def edges():
        return [round(x) for x in shown.evaluate_all(BOXES)]

    page.click("#add")  # 30 to 90
    touch("pointerdown", 1, 60)
    touch("pointermove", 1, 70)
    touch("pointermove", 2, 10)
    assert edges() == [40]
    touch("pointerup", 2, 10)
    touch("pointermove", 1, 80)
    assert edges() == [50]
    touch("pointerup", 1, 80)
    page.click("#add")
    touch("pointerdown", 1, 60)
    touch("pointermove", 1, 70)
    svg.press("Delete")
    touch("pointermove", 1, 62)
    assert edges() == [50]
    touch("pointerdown", 1, 60)
    touch("pointermove", 1, 55)
    svg.press("Escape")
    touch("pointermove", 1, 64)
    assert edges() == [45]
    assert svg.evaluate("svg => svg.querySelectorAll('.chosen').length") == 0


def test_two_clicks_open_one_camera(page):
    page.evaluate(
        """() => { window.asked = 0; Object.defineProperty(navigator, 'mediaDevices', { value: { getUserMedia: () => {
        window.asked += 1; return new Promise((_, fail) => setTimeout(() => fail(new Error()), 300)) } } });
        for (const click of [1, 2]) document.getElementById('camera').click() }"""
    )
    page.wait_for_selector("#error:not([hidden])")
    assert page.evaluate("window.asked") == 1
    assert page.is_enabled("#camera")
