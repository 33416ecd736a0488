"""Test the page of distilpose.demo in headless Chromium, and take screenshots.

python scripts/drive_demo.py STUDENT --compare OTHER --teacher TEACHER --photo FILE --output FOLDER

Needs Chromium and pip install playwright. Prints a line for each check and stops at the first failure.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from browser_actions import FLAGS, OVERFLOW, TIMEOUT, corners, opened, passed, screenshot, serving, wait_for_poses
from desktop_checks import on_a_desktop
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from distilpose.data.synthetic.scene import draw_scene
from distilpose.models import load_model, save_model

HOSTILE = "<img src=x onerror=document.title='pwned'>"


def main(arguments: list[str] | None = None) -> None:
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student", type=Path)
    parser.add_argument("--compare", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--photo", type=Path, help="an image; by default one is drawn")
    parser.add_argument("--box", type=float, nargs=4, action="append", help="box of a person on it: x y width height")
    parser.add_argument("--output", type=Path, required=True, help="folder for the screenshots")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photo, boxes = (args.photo, args.box) if args.photo else draw_photo(Path(folder))
        if not boxes:
            parser.error("--photo needs a --box for each person.")
        browser = playwright.chromium.launch(executable_path=args.chromium, args=FLAGS)
        roles = [f"compare={args.compare}", f"teacher.checkpoint={args.teacher}"]
        with serving(args.student, *roles) as address:
            on_a_desktop(browser, address, photo, boxes, args.output)
            on_a_phone(browser, address, photo, boxes, args.output)
            rejected_files(browser, address, photo, Path(folder))
            twenty_at_once(browser, address)
        with serving(args.student, f"teacher.checkpoint={args.teacher}") as address:
            camera(browser, address)
        with serving(with_hostile_names(args.student, Path(folder))) as address:
            hostile_names(browser, address, photo)
        browser.close()


def draw_photo(folder: Path) -> tuple[Path, list[list[float]]]:
    """Draw an image with two persons; return its path and their boxes."""
    for seed in range(1000):
        image, people = draw_scene(np.random.default_rng(seed), 512, 2, 0.6)
        boxes = [person["bbox"] for person in people]
        inside = all(x > 8 and y > 8 and x + w < 504 and y + h < 504 and h > 250 for x, y, w, h in boxes)
        apart = len(boxes) == 2 and abs(boxes[0][0] - boxes[1][0]) > 140
        if apart and inside and all(person["num_keypoints"] > 13 for person in people):
            Image.fromarray(image).save(folder / "people.png")
            return folder / "people.png", boxes
    raise AssertionError("no such image")


def on_a_phone(browser: Browser, address: str, photo: Path, boxes: list[list[float]], output: Path) -> None:
    """Check touch, the dark colour scheme, and narrow screens."""
    phone: dict[str, Any] = {"has_touch": True, "is_mobile": True, "device_scale_factor": 1, "color_scheme": "dark"}
    for width in (390, 360):
        with opened(browser, address, viewport={"width": width, "height": 800}, **phone) as page:
            page.set_input_files("#file", photo)
            wait_for_poses(page, 1)
            left, top, right, bottom = corners(page, boxes[0])
            finger = page.context.new_cdp_session(page)
            for kind, points in (
                ("touchStart", [{"x": left, "y": top}]),
                ("touchMove", [{"x": (left + right) / 2, "y": bottom}]),
                ("touchMove", [{"x": right, "y": bottom}]),
                ("touchEnd", []),
            ):
                finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            expect(page.locator("#persons button")).to_have_text("Person 1")
            wait_for_poses(page, 1)
            page.get_by_role("button", name="right_knee", exact=True).tap()
            page.wait_for_function("document.getElementById('map-student').width > 300")
            page.wait_for_timeout(300)
            assert page.evaluate(OVERFLOW) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if width == 390:
                page.evaluate("document.activeElement.blur()")
                screenshot(page, output / "demo_phone.png")
            passed(f"a box drawn by a finger, and nothing overflows at {width} px")


def rejected_files(browser: Browser, address: str, photo: Path, folder: Path) -> None:
    """Check that a file that is too large or not an image gives an error message, and that the next image is accepted."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    files = {name: folder / name for name in ("large.jpg", "many.png", "cut.jpg", "text.jpg", "picture.gif")}
    files["large.jpg"].write_bytes(bytes(11 * 2**20))
    Image.new("L", (8000, 6000)).save(files["many.png"])
    Image.fromarray(noise).save(files["cut.jpg"])
    files["cut.jpg"].write_bytes(files["cut.jpg"].read_bytes()[:20_000])
    files["text.jpg"].write_text("not an image")
    Image.fromarray(noise).save(files["picture.gif"])
    messages = {
        "large.jpg": "at most 10 MB", "many.png": "8000 x 6000 pixels", "cut.jpg": "damaged", "text.jpg": "not an image",
        "picture.gif": "JPEG, PNG or WebP",
    }  # fmt: skip
    with opened(browser, address, errors_expected=True) as page:
        for name, expected in messages.items():
            page.set_input_files("#file", files[name])
            expect(page.locator("#error")).to_contain_text(expected, timeout=TIMEOUT)
            passed(f"{name}: {page.locator('#error').inner_text()}")
            page.set_input_files("#file", photo)
            wait_for_poses(page, 1)
            expect(page.locator("#error")).to_be_hidden()


def twenty_at_once(browser: Browser, address: str) -> None:
    """Check that twenty concurrent requests are all answered."""
    with opened(browser, address) as page:
        result = page.evaluate(
            """async () => {
            const canvas = Object.assign(document.createElement('canvas'), {width: 400, height: 300});
            canvas.getContext('2d').fillRect(50, 50, 99, 99);
            const blob = await new Promise(done => canvas.toBlob(done, 'image/jpeg'));
            const ask = async number => {
                const form = new FormData();
                form.append('photo', blob, 'photo');
                form.append('boxes', JSON.stringify([[number, 10, 100, 200]]));
                const answer = await fetch('predict', {method: 'POST', body: form});
                return [answer.status, (await answer.json()).boxes[0][0]];
            };
            const start = performance.now();
            const answers = await Promise.all([...Array(20).keys()].map(ask));
            return {answers, seconds: (performance.now() - start) / 1000};
        }"""
        )
        assert result["answers"] == [[200, number] for number in range(20)], json.dumps(result)
        passed(f"20 concurrent requests each get their own answer, in {result['seconds']:.1f} s")


def camera(browser: Browser, address: str) -> None:
    """Check an image of Chromium's test camera."""
    with opened(browser, address) as page:
        page.locator("#camera").click()
        expect(page.locator("#shoot")).to_be_enabled(timeout=TIMEOUT)
        page.locator("#shoot").click()
        wait_for_poses(page, 1)
        expect(page.locator("#viewfinder")).to_be_hidden()
        assert page.evaluate("document.querySelector('video').srcObject") is None
        passed("the camera takes an image and is then released")


def with_hostile_names(student: Path, folder: Path) -> Path:
    """Save the student with HTML markup as the name of a joint."""
    model = load_model(student)
    model.skeleton = dataclasses.replace(model.skeleton, names=(HOSTILE, *model.skeleton.names[1:]))
    return save_model(model, folder / "student.safetensors")


def hostile_names(browser: Browser, address: str, photo: Path) -> None:
    """Check that markup in a name is shown as text."""
    with opened(browser, address) as page:
        page.set_input_files("#file", photo)
        wait_for_poses(page, 1)
        expect(page.locator("#joints tbody tr").first.locator("button")).to_have_text(HOSTILE)
        page.locator("#joints tbody button").first.click()
        assert page.locator("#joints img").count() == 0
        assert page.title() == "DistilPose"
        passed("markup in the name of a joint is only text")


if __name__ == "__main__":
    main()
