"""The folder of a synthetic set: COCO's format, deterministic, complete, never overwritten."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import coco as pycoco

from distilpose.data.synthetic import SyntheticDataModule, SyntheticSpec, write_synthetic
from distilpose.data.synthetic import dataset as dataset_module
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO, Skeleton

SPEC = SyntheticSpec(num_train=56, num_val=12, image_size=64, max_persons=2, drawing_seed=3)


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("drawn") / "people", SPEC, workers=1)


def test_same_parameters_give_the_same_bytes_for_any_number_of_processes(folder, tmp_path):
    # starts OpenCV's threads, as a training that has drawn pictures does; forked processes must not wait for them
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 5)
    again = write_synthetic(tmp_path / "again", SPEC, workers=2)
    assert contents(again) == contents(folder)
    assert [file.name for file in tmp_path.iterdir()] == ["again"]


def test_another_seed_and_the_other_split_draw_other_people(folder, tmp_path):
    other = write_synthetic(tmp_path / "other", SyntheticSpec(4, 4, 64, 2, drawing_seed=4), workers=1)
    pictures = [file.read_bytes() for root in (folder, other) for file in sorted(root.rglob("*.jpg"))]
    assert len(pictures) == 56 + 12 + 8
    assert len(set(pictures)) == len(pictures)


def test_a_longer_set_begins_with_the_shorter_one(folder, tmp_path):
    short = write_synthetic(tmp_path / "short", SyntheticSpec(5, 3, 64, 2, drawing_seed=3), workers=1)
    for picture in sorted(short.rglob("*.jpg")):
        assert picture.read_bytes() == (folder / picture.relative_to(short)).read_bytes()


def test_pycocotools_reads_it(folder, capsys):
    for split, count in (("train", 56), ("val", 12)):
        coco = pycoco.COCO(str(folder / "annotations" / f"person_keypoints_{split}.json"))
        assert len(coco.getImgIds()) == count
        category = coco.loadCats(coco.getCatIds(["person"]))[0]
        assert Skeleton.from_category(category) == COCO
        assert min(min(limb) for limb in category["skeleton"]) == 1
        annotations = coco.loadAnns(coco.getAnnIds(iscrowd=False))
        assert len(annotations) >= count
        assert len({annotation["id"] for annotation in annotations}) == len(annotations)
        for annotation in annotations:
            # the outline encloses the visible silhouette, except for half a pixel around it
            if annotation["area"] > 200:
                outlined = coco.annToMask(annotation).sum()
                assert 0.5 * annotation["area"] < outlined < 1.6 * annotation["area"]
        for image in coco.loadImgs(coco.getImgIds()):
            drawn = cv2.imread(str(folder / split / image["file_name"]))
            assert drawn.shape == (image["height"], image["width"], 3)


def test_a_finished_set_is_used_again(folder, monkeypatch):
    monkeypatch.setattr(dataset_module, "_draw_all", lambda *_: pytest.fail("drawn again"))
    assert write_synthetic(folder, SPEC) == folder


def test_other_parameters_in_the_folder_are_named(folder):
    before = contents(folder)
    with pytest.raises(DistilPoseError, match=r"drawing_seed 3 instead of 9, num_val 12 instead of 2"):
        write_synthetic(folder, SyntheticSpec(56, 2, 64, 2, drawing_seed=9))
    assert contents(folder) == before


def test_another_folder_is_not_changed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DistilPoseError, match=r"not a synthetic set.*another data\.root"):
        write_synthetic(tmp_path, SPEC)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(folder, *_):
        (folder / "train").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_module, "_draw_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "people", SPEC)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_draw_at_once_share_the_set(tmp_path):
    spec = SyntheticSpec(8, 2, 64, 1)
    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(lambda _: write_synthetic(tmp_path / "people", spec, workers=1), range(2)))
    assert roots == [tmp_path / "people"] * 2
    assert [file.name for file in tmp_path.iterdir()] == ["people"]
    assert json.loads((tmp_path / "people" / "spec.json").read_text())["digest"] == spec.digest


def test_digest_depends_on_parameters():
    assert SyntheticSpec().digest == SyntheticSpec().digest
    assert len({SyntheticSpec(drawing_seed=seed).digest for seed in range(20)}) == 20


def test_the_data_module_draws_and_reads_like_coco(tmp_path):
    module = SyntheticDataModule(
        folder=tmp_path, num_train=6, num_val=4, image_size=64, max_persons=2, input_size=(64, 48), num_workers=0
    )
    assert module.root == tmp_path / f"synthetic-{SyntheticSpec(6, 4, 64, 2).digest}"
    assert module.skeleton == COCO
    module.prepare_data()
    module.setup("fit")
    batch = next(iter(module.val_dataloader()))
    assert batch.image.shape[1:] == (3, 64, 48)
    counted = batch.weights > 0
    assert counted.any()
    assert bool(((batch.keypoints[counted] >= 0) & (batch.keypoints[counted] <= 1)).all())
    truth = json.loads(module.val_annotations.read_text())["annotations"]
    persons = [person for person in truth if person["num_keypoints"]]
    assert len(module.val_dataset()) == len(persons)
    # ground-truth boxes are read up to their last pixel, so they are a pixel smaller
    np.testing.assert_allclose(batch.bbox[0], np.array(persons[0]["bbox"]) - (0, 0, 1, 1), atol=0.01)
