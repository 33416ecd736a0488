from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from distilpose.data.geometry import on_image
from distilpose.errors import DistilPoseError
from distilpose.inference.boxes import read_boxes
from distilpose.inference.frame_boxes import read_frame_boxes
from distilpose.inference.images import find_images, image_ids


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for name in ("000000000785.jpg", "000000000007.PNG", "notes.txt", ".hidden.jpg"):
        (place / name).write_bytes(b"")
    return place


def write(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def test_a_list_of_detections(folder, tmp_path):
    ids = image_ids(find_images(folder))
    rows = [
        {"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 785, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.1},
        {"image_id": 785, "category_id": 1, "bbox": [1, 2, 0, 4], "score": 0.9},
        {"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"file_name": "sub/000000000007.PNG", "bbox": [5, 6, 7, 8]},
    ]
    boxes, numbers = read_boxes(write(tmp_path, rows), ids, category_id=1, threshold=0.5)
    assert {path.name: image_boxes.boxes.tolist() for path, image_boxes in boxes.items()} == {
        "000000000785.jpg": [[1, 2, 3, 4], [1, 2, 0, 4]],
        "000000000007.PNG": [[5, 6, 7, 8]],
    }
    assert np.concatenate([image_boxes.scores for image_boxes in boxes.values()]).tolist() == [0.9, 0.9, 1.0]
    assert numbers == ids


def test_images_have_the_numbers_of_the_annotation_file(folder, tmp_path):
    ids = image_ids(find_images(folder))
    content = {
        "images": [{"id": 3, "file_name": "000000000785.jpg"}, {"id": 785, "file_name": "another.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [9, 9, 9, 9], "iscrowd": 1},
            {"id": 3, "image_id": 785, "category_id": 1, "bbox": [5, 6, 7, 8]},
        ],
    }
    boxes, numbers = read_boxes(write(tmp_path, content), ids, category_id=1)
    assert {path.name: image_boxes.boxes.tolist() for path, image_boxes in boxes.items()} == {
        "000000000785.jpg": [[1, 2, 3, 4]]
    }
    assert numbers[folder / "000000000785.jpg"] == 3


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ({"images": []}, ["'annotations'", "list"]),
        ([{"image_id": 785}], ["Row 0", "'bbox'"]),
        ([{"bbox": [1, 2, 3, 4]}], ["Row 0", "'image_id'", "'file_name'"]),
        ([{"image_id": 785, "bbox": [1, 2, 3]}], ["row 0", "3 numbers", "4"]),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], ["category 1", "2 image"]),
        *(
            (
                {"images": [{"id": number, "file_name": "000000000785.jpg"}], "annotations": []},
                ["785.jpg", repr(number)],
            )
            for number in ("x", ["x"], 2**70, 1.5)
        ),
    ],
)
def test_malformed_box_files(folder, tmp_path, content, facts):
    with pytest.raises(DistilPoseError) as error:
        read_boxes(write(tmp_path, content), image_ids(find_images(folder)), category_id=1)
    assert all(fact in str(error.value) for fact in ["boxes.json", *facts])


@pytest.mark.parametrize(
    ("box", "good"),
    [
        ([1, 2, 3, 4], True), ([-5, -5, 6, 6], True), ([79, 39, 50, 50], True), ([-99, -99, 900, 900], True),
        ([80, 2, 3, 4], False), ([1, 40, 3, 4], False), ([-3, 2, 3, 4], False), ([1, -4, 3, 4], False),
        ([1, 2, 0, 4], False), ([60, 20, -9, 4], False), ([60, 20, 9, -4], False),
    ],
)  # fmt: skip
def test_boxes_on_an_image(box, good):
    assert on_image(np.array([box], dtype=float), (40, 80)).tolist() == [good]


def test_boxes_of_a_videos_frames(tmp_path):
    rows = [{"image_id": 0, "bbox": [1, 2, 3, 4]}, {"image_id": 4, "bbox": [1, 2, 3, 4], "score": 0.1}]
    frames = read_frame_boxes(write(tmp_path, rows), category_id=1)
    assert {number: boxes.scores.tolist() for number, boxes in frames.items()} == {0: [1.0], 4: [0.1]}
    assert list(read_frame_boxes(write(tmp_path, {"annotations": rows}), 1, threshold=0.5)) == [0]
    with pytest.raises(DistilPoseError, match=r"boxes\.json.*category 2"):
        read_frame_boxes(write(tmp_path, [{**rows[0], "category_id": 1}]), category_id=2)
    with pytest.raises(DistilPoseError, match=r"boxes\.json.*list"):
        read_frame_boxes(write(tmp_path, {}), category_id=1)


def images_in(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return image_ids(find_images((tmp_path / names[0]).parent))


def listing(*names, start=1):
    """An annotation file with one person, whose box starts at the image's id, on each image."""
    return {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names, start)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": [number, 2, 3, 4]}
            for number in range(start, start + len(names))
        ],
    }


@pytest.mark.parametrize("as_list", [False, True])
def test_the_folder_in_the_file_names_decides(as_list, tmp_path, caplog):
    caplog.set_level("INFO", "distilpose")
    content = listing("cam1/0001.jpg", "cam2/0001.jpg", "cam2/0002.jpg")
    if as_list:
        content = [
            {"file_name": entry["file_name"], "bbox": row["bbox"]}
            for entry, row in zip(content["images"], content["annotations"], strict=True)
        ]
    ids = images_in(tmp_path, "cam1/0001.jpg", "cam1/0002.jpg")
    boxes, numbers = read_boxes(write(tmp_path, content), ids, category_id=1)
    assert {path.name: image_boxes.boxes[:, 0].tolist() for path, image_boxes in boxes.items()} == {"0001.jpg": [1]}
    assert numbers[tmp_path / "cam1/0001.jpg"] == 1
    assert len(set(numbers.values())) == 2  # the image that is not in the file has no other image's number
    assert "1 of 3 rows are used" in caplog.text
    assert "2 of other images" in caplog.text


def test_a_name_that_fits_nothing_is_not_replaced_by_the_image_id(tmp_path, caplog):
    ids = images_in(tmp_path, "p/a.jpg", "p/b.jpg")
    rows = [
        {"file_name": "c.jpg", "image_id": 1, "bbox": [1, 2, 3, 4]},
        {"file_name": "b.jpg", "image_id": 1, "bbox": [5, 2, 3, 4]},
    ]
    boxes, _ = read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert {path.name: image_boxes.boxes[0, 0] for path, image_boxes in boxes.items()} == {"b.jpg": 5}
    assert "1 of other images" in caplog.text


def test_every_row_that_is_left_out_is_counted(tmp_path, caplog):
    ids = images_in(tmp_path, "p/a.jpg")
    row = {"file_name": "a.jpg", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}
    rows = [
        {**row, "iscrowd": "0"},  # spreadsheets write text
        {**row, "category_id": 18},
        {**row, "score": 0.1},
        {**row, "iscrowd": 1},
        {**row, "file_name": "x/y.jpg"},
    ]
    read_boxes(write(tmp_path, rows), ids, category_id=1, threshold=0.5)
    for fact in (
        "1 of 5 rows",
        "1 of another category than 1",
        "1 with a score below 0.5",
        "1 of crowds",
        "1 of other images",
    ):
        assert fact in caplog.text


def test_frames_without_leading_zeros_meet_their_boxes_by_number(tmp_path):
    names = [f"p/frame_{number}.jpg" for number in range(1, 13)]
    ids = images_in(tmp_path, *names)
    rows = [{"image_id": number, "bbox": [number, 2, 3, 4]} for number in range(1, 13)]
    boxes, _ = read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert {path.name: image_boxes.boxes[0, 0] for path, image_boxes in boxes.items()} == {
        f"frame_{number}.jpg": number for number in range(1, 13)
    }


def test_image_ids_that_may_mean_names_or_order(tmp_path, caplog):
    caplog.set_level("INFO", "distilpose")
    ids = images_in(tmp_path, *(f"p/frame_{number}.jpg" for number in range(2, 11)))

    def first_boxes(numbers, **options):
        rows = [{"image_id": number, "bbox": [number, 2, 3, 4]} for number in numbers]
        boxes, _ = read_boxes(write(tmp_path, rows), ids, category_id=1, **options)
        return {path.name: image_boxes.boxes[0, 0] for path, image_boxes in boxes.items()}

    by_name = {f"frame_{number}.jpg": number for number in range(2, 11)}
    assert first_boxes(range(2, 11)) == by_name
    assert first_boxes(range(1, 10)) == {name: number - 1 for name, number in by_name.items()}
    assert "count the 9 images from 1" in caplog.text
    with pytest.raises(DistilPoseError, match=r"image_id 3.*frame_3\.jpg.*frame_4\.jpg.*first_frame=1"):
        first_boxes([3])
    assert first_boxes([3], first=1) == {"frame_4.jpg": 3}
    assert first_boxes([3], first=2) == {"frame_3.jpg": 3}


def test_image_ids_that_are_names(tmp_path):
    """Ultralytics writes the name without suffix, as a number where it is one."""
    ids = images_in(tmp_path, "p/7.jpg", "p/a.jpg", "p/b.jpg")
    rows = [{"image_id": number, "bbox": [1, 2, 3, 4]} for number in ("b", 7)]
    boxes, _ = read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert {path.name for path in boxes} == {"7.jpg", "b.jpg"}


def test_a_shift_by_one_is_made_visible(tmp_path, caplog):
    ids = images_in(tmp_path, *(f"p/{number:06d}.jpg" for number in range(12)))
    rows = [{"image_id": number, "bbox": [number, 2, 3, 4]} for number in range(1, 13)]
    boxes, _ = read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert len(boxes) == 11
    assert "1 of other images" in caplog.text
    assert "shifted by one" in caplog.text
    assert "first_frame=1" in caplog.text
    boxes, _ = read_boxes(write(tmp_path, rows), ids, category_id=1, first=1)
    assert {path.name: image_boxes.boxes[0, 0] for path, image_boxes in boxes.items()} == {
        f"{number:06d}.jpg": number + 1 for number in range(12)
    }


def test_one_number_for_two_images(tmp_path):
    content = listing("a.jpg", "b.jpg")
    content["images"][1]["id"] = 1
    with pytest.raises(DistilPoseError, match=r"a\.jpg and b\.jpg the same id 1"):
        read_boxes(write(tmp_path, content), images_in(tmp_path, "p/a.jpg", "p/b.jpg"), category_id=1)


@pytest.mark.parametrize(
    ("names", "start", "expected"),
    [
        (["frame_000000.PNG", "frame_000001.PNG", "frame_000005.PNG"], 1, [0, 1, 5]),  # CVAT numbers images from 1
        (["000001.jpg", "000002.jpg", "000003.jpg"], 0, [0, 1, 2]),  # ffmpeg numbers files from 1
        (["x.jpg", "y.jpg", "z.jpg"], 4, [4, 5, 6]),
    ],
)
def test_file_names_number_the_frames(names, start, expected, tmp_path):
    frames = read_frame_boxes(write(tmp_path, listing(*names, start=start)), category_id=1)
    assert [*frames] == expected
    assert [boxes.boxes[0, 0] for boxes in frames.values()] == [start, start + 1, start + 2]


def test_stated_frames_decide(tmp_path):
    content = listing("v/000008.jpg", "v/000009.jpg")
    for entry, frame in zip(content["images"], (3, 4), strict=True):
        entry["frame_id"] = frame
    assert [*read_frame_boxes(write(tmp_path, content), category_id=1)] == [3, 4]
    rows = [{"image_id": 9, "frame": 2, "bbox": [1, 2, 3, 4]}, {"image_id": "x", "bbox": [1, 2, 3, 4]}]
    assert [*read_frame_boxes(write(tmp_path, rows), category_id=1)] == [2]
    assert [*read_frame_boxes(write(tmp_path, rows), category_id=1, first=1)] == [1]


@pytest.mark.parametrize("persons", [0, 2])
def test_the_name_of_a_category_decides_before_its_number(persons, tmp_path):
    """CVAT numbers its labels in their order, and tools of YOLO count from 0."""
    ids = images_in(tmp_path, "p/a.jpg")
    content = listing("a.jpg")
    content["categories"] = [{"id": 1, "name": "car"}, {"id": persons, "name": "Person"}]
    content["annotations"].append({**content["annotations"][0], "id": 2, "category_id": persons, "bbox": [7, 2, 3, 4]})
    path = write(tmp_path, content)
    with pytest.raises(DistilPoseError, match=rf"category 1 'car'.*category_id={persons}"):
        read_boxes(path, ids, category_id=1)
    boxes, _ = read_boxes(path, ids, category_id=persons)
    assert boxes[tmp_path / "p/a.jpg"].boxes[:, 0].tolist() == [7]
    del content["categories"][1]  # dogs in place of persons, say
    assert read_boxes(write(tmp_path, content), ids, category_id=1)[0][tmp_path / "p/a.jpg"].boxes[:, 0] == [1]


def test_categories_that_count_from_zero_are_told(tmp_path, caplog):
    ids = images_in(tmp_path, "p/a.jpg")
    rows = [{"file_name": "a.jpg", "category_id": number, "bbox": [1, 2, 3, 4], "score": 1} for number in (0, 0, 1, 5)]
    read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert "count from 0 (2 rows)" in caplog.text
    assert "1 rows of category 1" in caplog.text
    caplog.clear()
    read_boxes(write(tmp_path, rows), ids, category_id=0)
    read_boxes(write(tmp_path, rows[2:]), ids, category_id=1)
    assert "from 0" not in caplog.text


def test_boxes_that_are_fractions_and_scores_in_per_cent(tmp_path):
    ids = images_in(tmp_path, "p/a.jpg")
    row = {"file_name": "a.jpg", "bbox": [0.1, 0.2, 0.3, 0.4], "score": 0.9}
    with pytest.raises(DistilPoseError, match=r"above 0\.4 in 'bbox'.*fractions.*pixels"):
        read_boxes(write(tmp_path, [row]), ids, category_id=1)
    rows = [{**row, "bbox": [1, 2, 3, 4], "score": score} for score in (90, 3)]
    with pytest.raises(DistilPoseError, match=r"scores up to 90.*box_threshold=0\.5.*per cent"):
        read_boxes(write(tmp_path, rows), ids, category_id=1, threshold=0.5)
    assert len(read_boxes(write(tmp_path, rows), ids, category_id=1)[0]) == 1


def test_rows_without_a_score_are_counted(tmp_path, caplog):
    caplog.set_level("INFO", "distilpose")
    ids = images_in(tmp_path, "p/a.jpg")
    rows = [{"file_name": "a.jpg", "bbox": [1, 2, 3, 4]}, {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "score": 0.5}]
    read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert "1 of 2 boxes have no 'score', so it is 1." in caplog.text
    read_boxes(write(tmp_path, [{**rows[0], "confidence": 0.2}]), ids, category_id=1, threshold=0.5)
    assert "1 have 'confidence'" in caplog.text
    with pytest.raises(DistilPoseError, match=r"1 with a score below 0\.9 are left out"):
        read_boxes(write(tmp_path, rows[1:]), ids, category_id=1, threshold=0.9)


def test_image_ids_that_are_file_names(tmp_path):
    ids = images_in(tmp_path, "p/a.jpg", "p/a.png")
    rows = [{"image_id": name, "bbox": [x, 2, 3, 4]} for x, name in enumerate(("a.jpg", "a.png"))]
    boxes, _ = read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert {path.name: image_boxes.boxes[0, 0] for path, image_boxes in boxes.items()} == {"a.jpg": 0, "a.png": 1}


def test_image_ids_that_are_paths_follow_the_rules_of_file_names(tmp_path):
    """The base name alone would give the boxes of one camera to the other."""
    ids = {path: number for x in (1, 2) for path, number in images_in(tmp_path, f"cam{x}/a.jpg").items()}
    rows = [{"image_id": f"cam{x}/a.jpg", "bbox": [x, 2, 3, 4]} for x in (2, 1)]
    boxes, numbers = read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert {path.parent.name: of_image.boxes[0, 0] for path, of_image in boxes.items()} == {"cam1": 1, "cam2": 2}
    assert numbers == ids
    with pytest.raises(DistilPoseError, match="1 of images with an ambiguous name are left out"):
        read_boxes(write(tmp_path, [{"image_id": "a.jpg", "bbox": [1, 2, 3, 4]}]), ids, category_id=1)


@pytest.mark.parametrize("row", [{"frame": 1}, {"file_name": None}, {"image_id": None}])
def test_rows_that_name_no_image_are_counted(row, tmp_path):
    ids = images_in(tmp_path, "p/a.jpg")
    with pytest.raises(DistilPoseError, match="1 that name no image are left out"):
        read_boxes(write(tmp_path, [row | {"bbox": [1, 2, 3, 4]}]), ids, category_id=1)


@pytest.mark.parametrize("side", [float("nan"), float("inf"), 10**400, "64", [64]])
def test_sizes_that_are_none_are_not_compared(side, tmp_path):
    images_in(tmp_path, "p/a.jpg")
    Image.new("RGB", (64, 48)).save(tmp_path / "p/a.jpg")
    content = listing("a.jpg")
    content["images"][0] |= {"width": side, "height": side}
    assert len(read_boxes(write(tmp_path, content), {tmp_path / "p/a.jpg": 1}, category_id=1)[0]) == 1
    assert len(read_frame_boxes(write(tmp_path, content), 1, video="clip.mp4", size=(64, 48))) == 1


def test_a_category_without_a_name_is_no_other_category(tmp_path):
    ids = images_in(tmp_path, "p/a.jpg")
    content = listing("a.jpg")
    content["categories"] = [{"id": 1}, {"id": 2, "name": "person"}]
    assert len(read_boxes(write(tmp_path, content), ids, category_id=1)[0]) == 1


def test_rows_of_one_stated_frame_in_two_videos_are_not_merged(tmp_path):
    def rows(*names):
        return write(tmp_path, [{"file_name": name, "frame": 5, "bbox": [1, 2, 3, 4]} for name in names])

    with pytest.raises(DistilPoseError, match=r"a\.mp4 and b\.mp4.*one video"):
        read_frame_boxes(rows("a.mp4", "b.mp4"), category_id=1)
    assert len(read_frame_boxes(rows("a.mp4", "a.mp4"), category_id=1)[5].boxes) == 2
    assert [*read_frame_boxes(rows(["a"]), category_id=1)] == [5]


@pytest.mark.parametrize("key", ["frame", "frame_id", "frame_index"])
def test_the_frame_of_a_row_decides(key, tmp_path):
    rows = [{key: 3, "image_id": 900, "bbox": [1, 2, 3, 4]}, {key: 4, "bbox": [1, 2, 3, 4]}]
    assert [*read_frame_boxes(write(tmp_path, rows), category_id=1)] == [3, 4]


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_frames_of_two_videos_are_not_merged(as_list, stated, tmp_path):
    content = listing("cam1/frame_1.jpg", "cam1/frame_2.jpg", "cam2/frame_1.jpg", "cam2/frame_2.jpg")
    for place, entry in enumerate(content["images"]):
        entry |= {"frame_id": place % 2, "video_id": place // 2} if stated else {}
    if as_list:
        content = [
            {"file_name": entry["file_name"], **row} for entry, row in zip(*list(content.values())[:2], strict=True)
        ]
    with pytest.raises(DistilPoseError, match=r"cam1.frame_1\.jpg and cam2.frame_1\.jpg.*one video"):
        read_frame_boxes(write(tmp_path, content), category_id=1)


def test_images_have_the_numbers_that_rows_state_beside_their_name(tmp_path, caplog):
    """Results get these numbers, by which they are compared with the annotations later."""
    ids = images_in(tmp_path, "p/a.jpg", "p/b.jpg", "p/c.jpg")
    rows = [{"file_name": f"{name}.jpg", "image_id": id_, "bbox": [1, 2, 3, 4]} for name, id_ in (("b", 77), ("a", 2))]
    _, numbers = read_boxes(write(tmp_path, rows), ids, category_id=1)
    assert [numbers[tmp_path / f"p/{name}.jpg"] for name in "ab"] == [2, 77]
    assert len({*numbers.values()}) == 3
    assert "the names decide" not in caplog.text
    rows[1]["image_id"] = 77
    assert read_boxes(write(tmp_path, rows), ids, category_id=1)[1] == ids
    assert "the names decide" in caplog.text


@pytest.mark.parametrize("odd", [[], {}, "x", 1.5])
def test_odd_values_in_new_places(odd, tmp_path):
    ids = images_in(tmp_path, "p/a.jpg")
    content = listing("a.jpg")
    content["categories"] = [{"id": odd, "name": odd}, odd]
    assert len(read_boxes(write(tmp_path, content), ids, category_id=1)[0]) == 1
    content["annotations"].append({"image_id": 1, "category_id": odd, "bbox": [1, 2, 3, 4]})
    assert len(read_boxes(write(tmp_path, content), ids, category_id=1)[0]) == 1
    content["images"][0]["frame_id"] = odd
    assert len(read_frame_boxes(write(tmp_path, content), category_id=1)) == 1


@pytest.mark.parametrize(
    ("shown", "orientation", "facts"),
    [
        ((64, 48), 1, None), ((64, 47), 1, None), ((48, 64), 6, None), ((32, 24), 1, "1/2"),
        ((64, 48), 6, "EXIF orientation 6"), ((48, 64), 1, "sides are exchanged"), ((50, 50), 1, "cropped"),
    ],
)  # fmt: skip
def test_boxes_of_photographs_of_another_size(shown, orientation, facts, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "photos").mkdir()
    Image.new("RGB", shown).save(tmp_path / "photos/a.jpg", exif=exif)
    row = {"image_id": 7, "bbox": [40, 20, 8, 8]}
    content = {"images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48}], "annotations": [row]}
    ids = image_ids(find_images(tmp_path / "photos"))
    if facts is None:
        assert len(read_boxes(write(tmp_path, content), ids, category_id=1)[0]) == 1
    else:
        with pytest.raises(DistilPoseError, match=facts):
            read_boxes(write(tmp_path, content), ids, category_id=1)
    content["images"][0] |= {"width": None, "height": 0}  # a placeholder states nothing
    assert len(read_boxes(write(tmp_path, content), ids, category_id=1)[0]) == 1
    assert len(read_boxes(write(tmp_path, [row | {"file_name": "a.jpg"}]), ids, category_id=1)[0]) == 1


def test_boxes_of_a_video_of_another_size(tmp_path):
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48} for number in range(3)]
    content = {"images": images, "annotations": [{"image_id": number, "bbox": [1, 2, 30, 40]} for number in range(3)]}
    assert len(read_frame_boxes(write(tmp_path, content), 1, video="clip.mp4", size=(64, 48))) == 3
    with pytest.raises(DistilPoseError, match=r"clip.mp4 has 32 x 24 pixels.*1/2"):
        read_frame_boxes(write(tmp_path, content), 1, video="clip.mp4", size=(32, 24))
