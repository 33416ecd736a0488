"""Which rectangles of a labelling tool are persons' boxes."""

from __future__ import annotations

import json

import pytest
from annotated import CVAT_SKELETON, cvat_file

from distilpose.errors import DistilPoseError

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
def test_boxes_of_persons_are_not_guessed_among_labels(converted, sound, tmp_path, joints):
    source = cvat_file(tmp_path / "a.xml", joints + box("person_box", PERSON) + box("vest", VEST))
    folder = sound(images=1).folder
    with pytest.raises(DistilPoseError, match=r"labels 'person_box', 'vest': name by --box-label"):
        converted("cvat", source, folder)
    content, told = converted("cvat", source, folder, box_labels=("person_box",))
    assert boxes_of(content) == [PERSON]
    assert content["annotations"][0]["num_keypoints"] == 2
    assert "left out: 1 rectangles of other labels than --box-label" in told
    with pytest.raises(DistilPoseError, match=r"--box-label car .*choose of 'person_box', 'vest'"):
        converted("cvat", source, folder, box_labels=("car",))


def test_the_only_label_is_taken_and_told(converted, sound, tmp_path):
    source = cvat_file(tmp_path / "a.xml", SKELETON + box("car", PERSON) + box("car", EMPTY))
    content, told = converted("cvat", source, sound(images=1).folder)
    assert boxes_of(content) == [PERSON, EMPTY]
    assert "2 rectangles labelled 'car' were taken as persons' boxes, 1 of them without joints." in told


def test_several_labels_of_persons(converted, sound, tmp_path):
    source = cvat_file(tmp_path / "a.xml", SKELETON + box("man", PERSON) + box("woman", EMPTY) + box("vest", VEST))
    content, told = converted("cvat", source, sound(images=1).folder, box_labels=("man", "woman"))
    assert boxes_of(content) == [PERSON, EMPTY]
    assert any("labelled 'man', 'woman'" in line for line in told)


def test_category_chooses_skeletons_where_boxes_have_a_label_of_their_own(converted, sound, tmp_path):
    shapes = SKELETON + CVAT_SKELETON.format("dog") + box("person_box", PERSON) + box("dog_box", EMPTY)
    source = cvat_file(tmp_path / "a.xml", shapes)
    folder = sound(images=1).folder
    content, _ = converted("cvat", source, folder, category="person", box_labels=("person_box",))
    assert boxes_of(content) == [PERSON]
    assert content["annotations"][0]["num_keypoints"] == 2
    content, told = converted("cvat", source, folder, category="person")
    assert boxes_of(content) != [PERSON]
    assert any(line.startswith("left out: 2 boxes") and "--box-label" in line for line in told), told


def test_no_rectangle_at_all(converted, sound, tmp_path):
    source, folder = cvat_file(tmp_path / "a.xml", SKELETON), sound(images=1).folder
    with pytest.raises(DistilPoseError, match=r"--box-label person_box .*leave it out"):
        converted("cvat", source, folder, box_labels=("person_box",))
    _, told = converted("cvat", source, folder)
    assert not any("boxes" in line for line in told)


@pytest.mark.parametrize("form", ["yolo-pose", "mpii", "crowdpose", "lsp"])
def test_box_labels_are_refused_where_they_mean_nothing(converted, sound, form):
    data = sound(images=1)
    with pytest.raises(DistilPoseError, match="--box-label means nothing"):
        converted(form, data.write(), data.folder, box_labels=("person",))


def test_rectangles_of_label_studio(converted, sound, tmp_path):
    size = {"original_width": 240, "original_height": 160}

    def region(number, place, **more):
        x, y, *sides = place
        value = {"x": x / 2.4, "y": y / 1.6, **more}
        value |= dict(zip(("width", "height"), (sides[0] / 2.4, sides[1] / 1.6), strict=True)) if sides else {}
        return {"id": number, "type": next(iter(more)), "value": value, **size}

    result = [
        region("p", PERSON, rectanglelabels=["Person"]),
        region("v", VEST, rectanglelabels=["Vest"]),
        region("a", [30, 40], keypointlabels=["a"]),
    ]
    (tmp_path / "a.json").write_text(json.dumps([{"data": {"image": "1.png"}, "annotations": [{"result": result}]}]))
    folder = sound(images=1).folder
    with pytest.raises(DistilPoseError, match="labels 'Person', 'Vest': name by --box-label"):
        converted("label-studio", tmp_path / "a.json", folder)
    for how in ({"box_labels": ("Person",)}, {"category": "Person"}):
        content, told = converted("label-studio", tmp_path / "a.json", folder, **how)
        assert boxes_of(content) == [PERSON]
        assert content["annotations"][0]["num_keypoints"] == 1
        assert "1 rectangles labelled 'Person' were taken as persons' boxes, 0 of them without joints." in told
    result[2]["parentID"] = "p"  # so that none is left where nobody's rectangle is taken
    (tmp_path / "b.json").write_text(json.dumps([{"data": {"image": "1.png"}, "annotations": [{"result": result}]}]))
    for how in ({"box_labels": ("person",)}, {"category": "person"}):
        with pytest.raises(DistilPoseError, match=r"person is the label of no rectangle .*choose of 'Person', 'Vest'"):
            converted("label-studio", tmp_path / "b.json", folder, **how)
