"""Checks of the page of distilpose.demo in a wide window: boxes by mouse and by keys, joints and heat maps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from browser_actions import OVERFLOW, colours, corners, drag, opened, passed, screenshot, shown_box, wait_for_poses
from playwright.sync_api import Browser, Page, expect


def on_a_desktop(browser: Browser, address: str, photo: Path, boxes: list[list[float]], output: Path) -> None:
    """Check the upload, boxes by mouse and keys, joints, heat maps and the threshold."""
    with opened(browser, address, viewport={"width": 1280, "height": 900}) as page:
        page.set_input_files("#file", photo)
        wait_for_poses(page, 1)
        passed("an image without boxes is one person")
        boxes_by_mouse(page, boxes)
        boxes_by_keys(page, boxes)
        joints_and_heat_maps(page)
        assert page.evaluate(OVERFLOW) == []
        page.wait_for_timeout(300)
        page.evaluate("document.activeElement.blur()")
        screenshot(page, output / "demo_wide.png")
        passed("nothing overflows at 1280 px")


def boxes_by_mouse(page: Page, boxes: list[list[float]]) -> None:
    """Draw each box, then resize and move the last."""
    for count, box in enumerate(boxes, start=1):
        left, top, right, bottom = corners(page, box)
        page.keyboard.press("Escape")
        drag(page, (left, top), (right, bottom))
        wait_for_poses(page, count)
        assert np.abs(np.array(shown_box(page)) - box).max() < 3, (shown_box(page), box)
    passed(f"{len(boxes)} box(es) drawn by the mouse are where they were drawn")

    before = shown_box(page)
    left, top, right, bottom = corners(page, before)
    drag(page, (right, bottom), (right - 20, bottom - 30))
    wait_for_poses(page, len(boxes))
    after = shown_box(page)
    assert after[:2] == before[:2], (before, after)
    assert after[2] < before[2], (before, after)
    assert after[3] < before[3], (before, after)
    middle = ((left + right) / 2, (top + bottom) / 2)
    drag(page, middle, (middle[0] - 12, middle[1] - 6))
    wait_for_poses(page, len(boxes))
    moved = shown_box(page)
    assert np.allclose(moved[2:], after[2:], atol=0.2), (after, moved)
    assert moved[0] < after[0], (after, moved)
    passed("a box is resized by its handle and moved")


def boxes_by_keys(page: Page, boxes: list[list[float]]) -> None:
    """Delete, add, move and resize a box by keys, and draw the last box again."""
    page.locator("#pictures svg").first.focus()
    page.keyboard.press("Delete")
    wait_for_poses(page, max(1, len(boxes) - 1))
    page.locator("#add").click()
    wait_for_poses(page, len(boxes))
    before = shown_box(page)
    page.locator("#persons button").last.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    wait_for_poses(page, len(boxes))
    after = shown_box(page)
    assert after[0] > before[0], (before, after)
    assert after[3] > before[3], (before, after)
    page.keyboard.press("Delete")
    wait_for_poses(page, max(1, len(boxes) - 1))
    page.keyboard.press("Escape")
    left, top, right, bottom = corners(page, boxes[-1])
    drag(page, (left, top), (right, bottom))
    wait_for_poses(page, len(boxes))
    passed("boxes are added, moved, resized and deleted by keys")


def joints_and_heat_maps(page: Page) -> None:
    """Hide joints by the slider, and choose joints to see their heat maps."""
    page.locator("#threshold").fill("1")
    few = page.locator("#pictures .joint").count()
    page.locator("#threshold").fill("0.2")
    assert page.locator("#pictures .joint").count() > few
    passed("the slider hides and shows joints")

    joint = page.locator("#pictures svg").first.locator("circle.joint:not(.ring)").nth(0)
    joint.scroll_into_view_if_needed()
    place = joint.bounding_box()
    assert place is not None
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    expect(page.locator("#joints tr.picked")).to_have_count(1)
    page.locator("#persons button").last.click()
    page.get_by_role("button", name="left_wrist", exact=True).click()
    expect(page.locator("#map-teacher")).to_have_attribute(
        "aria-label", re.compile("Teacher heat map, left_wrist: peak")
    )
    page.wait_for_function("document.getElementById('map-student').width > 300")
    assert colours(page, "map-teacher") > 100
    assert colours(page, "map-student") > 100
    passed("a joint chosen in the image or the table shows the teacher's heat map beside the simulated one")
    apart = page.locator("#joints tbody tr td:last-child").all_inner_texts()
    assert max(float(text) for text in apart if text) > 0, apart
