"""CVAT's XML that is hostile, damaged or endless."""

from __future__ import annotations

import re
import time

import pytest
from annotated import CVAT_BOX, CVAT_SKELETON, cvat_file

from distilpose.curation.conversion import convert_set

BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><annotations>&b;</annotations>'
FETCH = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations><image name="&x;"/></annotations>'

ENCODINGS = ("nonsense", "utf-7", "shift_jis", "idna", "hex")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (BOMB, "<!DOCTYPE>"),
        (FETCH, "<!DOCTYPE>"),
        (BOMB.encode("utf-16"), "<!DOCTYPE>"),
        ("<annotations>" + "<a>" * 5000, "nested too deeply"),
        ("<annotations><track/></annotations>", "CVAT for video"),
        ("<annotations></annotations>", "lists no persons"),
        ("no xml", "syntax error"),
        ('<annotations><image name="1.png"><points label="a" points="1,x"/></image></annotations>', "'x'"),
        *((f'<?xml version="1.0" encoding="{name}"?><annotations/>', "") for name in ENCODINGS),
    ],
)
def test_hostile_xml(rejected, sound, tmp_path, text, fact):
    (tmp_path / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    rejected("cvat", tmp_path / "a.xml", sound(images=1, persons=1).folder, "a.xml", fact)


ODD_TEXT = ["", "x", "nan", "inf", "1e400", "1e308", "-1e308", "-1", "9" * 5000, "1,1", ";", "1,1;2,2", "[", "\u20ac"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ODD_TEXT, ids=[str(n) for n in range(len(ODD_TEXT))])
def test_invalid_values_in_every_attribute_of_cvat(convert_corrupted, sound, tmp_path, odd):
    data = sound(images=1)
    labels = (
        '<label><name>hand</name><type>skeleton</type><svg>&lt;circle data-node-id="1" data-label-name="a"&gt;'
        '&lt;line data-node-from="1" data-node-to="2"&gt;</svg></label>'
        "<label><name>a</name><type>points</type><parent>hand</parent></label>"
    )
    shapes = CVAT_SKELETON.format("hand") + CVAT_BOX.format("hand", ' rotation="0" group_id="1"')
    shapes += '<points label="c" occluded="0" group_id="1" points="40,40"/>'
    cvat_file(tmp_path / "good.xml", shapes, labels)
    good = (tmp_path / "good.xml").read_text()
    outcomes = []
    for match in re.finditer(r'(?<==")[^"]*(?=")', good):
        (tmp_path / "bad.xml").write_text(good[: match.start()] + odd + good[match.end() :], encoding="utf-8")
        outcomes.append(convert_corrupted("cvat", tmp_path / "bad.xml", data.folder))
    assert convert_corrupted("cvat", tmp_path / "good.xml", data.folder)
    assert len(outcomes) == 24
    assert any(outcomes)


@pytest.mark.slow
def test_thousands_of_shapes_on_an_image_take_no_hours(rejected, sound, tmp_path):
    boxes = "".join(f'<box label="p" xtl="1" ytl="1" xbr="{9 + n % 99}" ybr="99"/>' for n in range(3000))
    points = "".join(f'<points label="a" points="{1 + n % 99},9"/>' for n in range(3000))
    start = time.process_time()
    convert_set("cvat", cvat_file(tmp_path / "a.xml", boxes + points), sound(images=1).folder, tmp_path / "a.json")
    assert time.process_time() - start < 6
    source = cvat_file(tmp_path / "b.xml", boxes * 10 + points * 10)
    start = time.process_time()
    rejected("cvat", source, sound(images=1, seed=1).folder, "thousands of boxes and points")
    assert time.process_time() - start < 15


@pytest.mark.slow
def test_thousands_of_skeletons_and_boxes(sound, tmp_path):
    shapes = CVAT_SKELETON.format("p") * 1500 + CVAT_BOX.format("p", "") * 1500
    start = time.process_time()
    convert_set("cvat", cvat_file(tmp_path / "a.xml", shapes), sound(images=1).folder, tmp_path / "a.json")
    assert time.process_time() - start < 6
