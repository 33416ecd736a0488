"""Annotation files with different joints, merged into one."""

from __future__ import annotations

import json

import pytest
import torch

from distilpose.data import CocoKeypoints
from distilpose.skeleton import COCO, Skeleton

OTHER = Skeleton.from_names(["neck", "RightHip", "LeftHip", "left_ankle"])


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("merge_sets")


def persons(file, images):
    return CocoKeypoints(file, images, input_size=(64, 48))


def test_persons_of_both_sets_with_the_joints_of_the_first(script, tiny_coco, tmp_path):
    roots = tiny_coco(train=4), tiny_coco(train=5, skeleton=OTHER, seed=1)
    files = [root / "annotations" / "train.json" for root in roots]
    script.main(
        [str(tmp_path / "both.json"), *(f"{file}={root}/train" for file, root in zip(files, roots, strict=True))]
    )
    merged = persons(tmp_path / "both.json", tmp_path)
    first, second = (persons(file, root / "train") for file, root in zip(files, roots, strict=True))
    assert merged.skeleton.names == COCO.names
    assert merged.skeleton.sigmas == COCO.sigmas
    assert len(set(merged.image_ids)) == 9
    for index, person in enumerate(first):
        assert torch.equal(merged[index].image, person.image)
        assert torch.equal(merged[index].keypoints, person.keypoints)
    rest = [merged[len(first) + index] for index in range(len(merged) - len(first))]
    hip, ankle = COCO.names.index("left_hip"), COCO.names.index("left_ankle")
    # persons with only a labelled neck have no joint left, and are left out
    shown = [person for person in second if person.labelled[1:].any()]
    assert len(rest) == len(shown)
    for person, theirs in zip(rest, shown, strict=True):
        assert torch.equal(person.image, theirs.image)
        assert torch.equal(person.keypoints[[hip, ankle]], theirs.keypoints[[2, 3]])
        assert person.labelled.sum() == theirs.labelled[1:].sum()


def test_errors_name_the_cause(script, tiny_coco, tmp_path, capsys):
    root = tiny_coco()
    one = f"{root}/annotations/train.json={root}/train"
    tail = tiny_coco(skeleton=Skeleton.from_names(["tail", "horn"]))
    (tmp_path / "there.json").touch()
    for arguments, message in (
        ([tmp_path / "there.json", one], "there.json exists"),
        ([tmp_path / "new.json", one, f"{tail}/annotations/train.json={tail}/train"], "has none of the joints"),
    ):
        with pytest.raises(SystemExit, match=message):
            script.main([str(argument) for argument in arguments])
    with pytest.raises(SystemExit, match="2"):
        script.main([str(tmp_path / "new.json"), str(root)])
    assert "FILE=FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "new.json").exists()


def test_leeds_sports_with_the_joints_of_coco(script, shared_data, tmp_path):
    lspet, coco = shared_data / "lspet", shared_data / "coco-mini" / "annotations" / "person_keypoints_val2017.json"
    source = lspet / "annotations" / "lspet_val.json"
    script.main([str(tmp_path / "lspet.json"), f"{source}={lspet}/val", "--joints", str(coco)])
    merged, theirs = persons(tmp_path / "lspet.json", tmp_path), persons(source, lspet / "val")
    assert merged.skeleton.names == COCO.names
    known = [name for name in COCO.names if name in theirs.skeleton.names]
    assert len(known) == 12
    places = [theirs.skeleton.names.index(name) for name in known]
    kept = theirs.instances.labelled[:, places].any(axis=1)
    assert merged.instances.labelled.sum() == theirs.instances.labelled[kept][:, places].sum()


def test_pairs_that_names_do_not_state_are_kept(script, tiny_coco):
    root = tiny_coco(train=3, skeleton=Skeleton.from_names(["a", "b", "c"]))
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    content["categories"][0]["flip_pairs"] = [[0, 2]]
    file.write_text(json.dumps(content))
    merged = script.merge([(file, root / "train"), (file, root / "train")], root)
    assert Skeleton.from_category(merged["categories"][0]).flip_pairs == ((0, 2),)
