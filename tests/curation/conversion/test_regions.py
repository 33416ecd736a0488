"""Which rectangles of a labelling tool are persons' boxes."""

from __future__ import annotations

import pytest
from annotated import CVAT_SKELETON, cvat_file, key_point, label_studio_file, rectangle

PERSON, VEST, EMPTY = [10, 10, 90, 90], [28, 38, 34, 44], [120, 10, 50, 60]
SKELETON = CVAT_SKELETON.format("person")


def box(label, place, group=""):
    """A rectangle of CVAT at x, y, width, height."""
    x, y, width, height = place
    return f'<box label="{label}" xtl="{x}" ytl="{y}" xbr="{x + width}" ybr="{y + height}"{group}/>'


def boxes_of(content):
    return [row["bbox"] for row in content["annotations"]]


POINTS = '<points label="a" points="30,40"/><points label="b" points="60,80"/>'


@pytest.mark.parametrize("joints", [SKELETON, POINTS])
def test_boxes_of_several_labels_need_a_choice(converted, rejected, sound, tmp_path, joints):
    source = cvat_file(tmp_path / "a.xml", joints + box("person_box", PERSON) + box("vest", VEST))
    folder = sound(images=1).folder
    rejected("cvat", source, folder, "'person_box', 'vest'", "--box-label")
    content, report = converted("cvat", source, folder, box_labels=("person_box",))
    assert boxes_of(content) == [PERSON]
    assert content["annotations"][0]["num_keypoints"] == 2
    assert "skipped: 1 rectangles of other labels than --box-label" in report
    rejected("cvat", source, folder, "'car'", "'person_box', 'vest'", box_labels=("car",))


def test_the_only_label_of_boxes_is_taken_with_a_note(converted, sound, tmp_path):
    source = cvat_file(tmp_path / "a.xml", SKELETON + box("car", PERSON) + box("car", EMPTY))
    content, report = converted("cvat", source, sound(images=1).folder)
    assert boxes_of(content) == [PERSON, EMPTY]
    assert "2 rectangles labelled 'car' are used as persons' boxes, 1 of them without joints." in report


def test_several_labels_of_persons(converted, sound, tmp_path):
    source = cvat_file(tmp_path / "a.xml", SKELETON + box("man", PERSON) + box("woman", EMPTY) + box("vest", VEST))
    content, report = converted("cvat", source, sound(images=1).folder, box_labels=("man", "woman"))
    assert boxes_of(content) == [PERSON, EMPTY]
    assert any("labelled 'man', 'woman'" in line for line in report)


def test_category_chooses_skeletons_and_box_label_boxes(converted, sound, tmp_path):
    shapes = SKELETON + CVAT_SKELETON.format("dog") + box("person_box", PERSON) + box("dog_box", EMPTY)
    source = cvat_file(tmp_path / "a.xml", shapes)
    folder = sound(images=1).folder
    content, _ = converted("cvat", source, folder, category="person", box_labels=("person_box",))
    assert boxes_of(content) == [PERSON]
    assert content["annotations"][0]["num_keypoints"] == 2
    content, report = converted("cvat", source, folder, category="person")
    assert boxes_of(content) != [PERSON]
    assert any(line.startswith("skipped: 2 boxes") and "--box-label" in line for line in report), report


def test_no_rectangle_at_all(converted, rejected, sound, tmp_path):
    source, folder = cvat_file(tmp_path / "a.xml", SKELETON), sound(images=1).folder
    rejected("cvat", source, folder, "'person_box'", "leave the option out", box_labels=("person_box",))
    _, report = converted("cvat", source, folder)
    assert not any("boxes" in line for line in report)


def percent(place):
    """x, y, width, height in percent of the image."""
    return [value / side for value, side in zip(place, (2.4, 1.6) * 2, strict=True)]


def test_rectangles_of_label_studio(converted, rejected, sound, tmp_path):
    regions = [rectangle("p", "Person", *percent(PERSON)), rectangle("v", "Vest", *percent(VEST))]
    source = label_studio_file(tmp_path / "a.json", ("1.png", [*regions, key_point("a", 12.5, 25)]))
    folder = sound(images=1).folder
    rejected("label-studio", source, folder, "'Person', 'Vest'", "--box-label")
    for options in ({"box_labels": ("Person",)}, {"category": "Person"}):
        content, report = converted("label-studio", source, folder, **options)
        assert boxes_of(content) == [PERSON]
        assert content["annotations"][0]["num_keypoints"] == 1
        assert "1 rectangles labelled 'Person' are used as persons' boxes, 0 of them without joints." in report
    # the key point has a parent, so it is skipped with its rectangle
    source = label_studio_file(tmp_path / "b.json", ("1.png", [*regions, key_point("a", 12.5, 25, parentID="p")]))
    for options in ({"box_labels": ("person",)}, {"category": "person"}):
        rejected("label-studio", source, folder, "No rectangle has the label 'person'", "'Person', 'Vest'", **options)
