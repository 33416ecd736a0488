"""Several data sets in one training: joints are matched by name."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from distilpose import create_model
from distilpose.cli.paths import CONFIG_DIR
from distilpose.data import CocoDataModule, CocoKeypoints, MixedDataModule, MixedPersons
from distilpose.data.augmentation import PoseAugmentation
from distilpose.data.images import read_image
from distilpose.data.mixed import _shifts
from distilpose.errors import DistilPoseError
from distilpose.evaluation import mean_pose, predict_mean_pose
from distilpose.outputs import PoseBatch
from distilpose.skeleton import COCO, Skeleton
from distilpose.teachers.frozen import CheckpointSource
from distilpose.teachers.recorded import RecordedTeacher
from distilpose.teachers.recorder import find_recording, record

LSP = Skeleton.from_names(
    [
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "neck",
        "head_top",
    ]
)
OPTIONS = {"input_size": (64, 48)}


def persons(root, **options):
    return CocoKeypoints(root / "annotations" / "train.json", root / "train", **OPTIONS | options)


@pytest.fixture
def two(tiny_coco):
    return persons(tiny_coco(train=5)), persons(tiny_coco(train=4, skeleton=LSP, seed=3))


def test_joints_are_matched_by_name(two):
    first, second = two
    mixed = MixedPersons(two, COCO)
    assert len(mixed) == len(first) + len(second)
    for index, person in enumerate(first):
        assert all(torch.equal(a, b) for a, b in zip(mixed[index], person, strict=True))
    known = [name for name in COCO.names if name in LSP.names]
    assert len(known) == 12
    for index, person in enumerate(second):
        sample = mixed[len(first) + index]
        assert torch.equal(sample.image, person.image)
        for joint, name in enumerate(COCO.names):
            if name not in LSP.names:
                assert sample.weights[joint] == sample.labelled[joint] == 0
                assert sample.keypoints[joint].tolist() == [0, 0]
                continue
            lsp_joint = LSP.names.index(name)
            for field in ("keypoints", "weights", "labelled"):
                assert torch.equal(getattr(sample, field)[joint], getattr(person, field)[lsp_joint])
    instances = mixed.instances
    assert len(instances.labelled) == len(mixed)
    assert not instances.labelled[len(first) :, : COCO.names.index("left_shoulder")].any()
    assert instances.labelled[len(first) :].sum() == sum(
        second.instances.labelled[:, LSP.names.index(name)].sum() for name in known
    )


def test_sets_without_a_joint_in_common(two, tiny_coco):
    other = persons(tiny_coco(skeleton=Skeleton.from_names(["tail", "horn"])))
    with pytest.raises(DistilPoseError, match="has none of the joints nose"):
        MixedPersons([two[0], other], COCO)


def settings_of_both(tiny_coco):
    """Overrides of the train command for a tiny COCO set and a tiny Leeds Sports set."""
    coco, lsp = tiny_coco(train=5), tiny_coco(train=4, skeleton=LSP)
    places = [
        f"data.{part}={value}" for part, value in (
            ("root", coco), ("train_annotations", "annotations/train.json"), ("train_images", "train"),
            ("val_annotations", "annotations/val.json"), ("val_images", "val"), ("others.lspet.root", lsp),
            ("others.lspet.train_annotations", "annotations/train.json"), ("others.lspet.train_images", "train"),
            ("others.lspet.val_annotations", "annotations/val.json"), ("others.lspet.val_images", "val"),
        )
    ]  # fmt: skip
    return [
        "data=coco_lspet", *places, "data.repeats.lspet=2",
        "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1",
        "model.width=32", "model.heads=2", "model.input_size=[64,48]", "loss=regression", "logger=none",
        "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.num_sanity_val_steps=0", "~callbacks.pictures",
    ]  # fmt: skip


def test_the_shipped_mixture(tiny_coco):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", settings_of_both(tiny_coco))
    data = instantiate(cfg.data)
    assert data.skeleton == COCO
    views = [batch.annotation_id for batch in data.train_dataloader()]
    assert len(views) == len(data.train_dataset()) // 4
    assert data.others["lspet"].augmentation is not None  # the same as for the first set


@pytest.mark.slow
def test_a_resumed_training_equals_an_uninterrupted_one(run_train, tiny_coco, tmp_path):
    settings = settings_of_both(tiny_coco)
    for name, epochs in (("uninterrupted", 2), ("resumed", 1)):
        status, output = run_train(*settings, f"hydra.run.dir={name}", f"trainer.max_epochs={epochs}")
        assert status == 0, output
    status, output = run_train("resume=resumed", "trainer.max_epochs=2")
    assert status == 0, output
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("uninterrupted", "resumed")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def module_of(first, others, **options):
    """A data module of sets in the folders that `tiny_coco` makes."""
    files = ("annotations/train.json", "train", "annotations/val.json", "val")
    modules = {name: CocoDataModule(root, *files, **OPTIONS, num_workers=0) for name, root in others.items()}
    return MixedDataModule(first, *files, **OPTIONS, num_workers=0, batch_size=2, others=modules, **options)


def test_repeats_are_different_views(tiny_coco):
    augmentation = PoseAugmentation(rotation=30, rotation_prob=1)
    data = module_of(tiny_coco(train=5), {"lsp": tiny_coco(train=4, skeleton=LSP)}, repeats={"lsp": 3})
    data.batch_size = 1  # so that no person is left for the next epoch
    data.augmentation = data.others["lsp"].augmentation = augmentation
    mixed = data.train_dataset()
    sizes = [len(one) for one in mixed.sets]
    assert sizes == [sizes[0], *[sizes[1]] * 3]
    assert len(mixed) == len(mixed.instances.image_ids) == sum(sizes)
    views = list(data.train_dataloader().sampler)
    assert sorted(index for index, _ in views) == list(range(len(mixed)))
    seeds = dict(views)
    same = [sizes[0] + sizes[1] * time for time in range(3)]  # the first of Leeds Sports' persons
    persons = [mixed[index, seeds[index]] for index in same]
    assert len({person.annotation_id.item() for person in persons}) == 1
    assert not torch.equal(persons[0].warp, persons[1].warp)
    assert not torch.equal(persons[1].warp, persons[2].warp)


def test_two_processes_share_all_sets(tiny_coco):
    data = module_of(tiny_coco(train=6), {"lsp": tiny_coco(train=7, skeleton=LSP)})
    data.batch_size = 1
    count, shown = len(data.train_dataset()), []
    for rank in range(2):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, accumulate_grad_batches=1)
        shown.append([index for index, _ in data.train_dataloader().sampler])
    assert set(shown[0]) | set(shown[1]) <= set(range(count))
    assert not set(shown[0]) & set(shown[1])
    assert len(shown[0]) == len(shown[1]) == count // 2


def test_label_share_of_each_set(tiny_coco):
    data = module_of(tiny_coco(train=8), {"lsp": tiny_coco(train=8, skeleton=LSP)}, label_share=0.0, unlabelled=True)
    first = len(data.train_dataset().sets[0])
    labelled = data.train_dataset().instances.labelled
    assert not labelled[:first].any()
    assert labelled[first:].any(axis=1).all()


@pytest.mark.parametrize(
    ("other", "first", "facts"),
    [
        ({}, {"repeats": {"mpii": 2}}, r"data\.repeats\.mpii.*first, lsp"),
        ({"unlabelled": True}, {}, r"data\.others\.lsp\.unlabelled=true.* data\.unlabelled=true"),
    ],
)
def test_mismatched_settings(other, first, facts):
    paths = ("a", "b", "c", "d", "e")
    others = {"lsp": CocoDataModule(*paths, **OPTIONS | other)}
    with pytest.raises(DistilPoseError, match=facts):
        MixedDataModule(*paths, others=others, **OPTIONS | first)


def test_a_teacher_recorded_on_a_mixture(tiny_coco, tmp_path):
    """Both sets have the same ids. Each person's maps are those of a recording of its own set; repeats are recorded once."""
    data = module_of(tiny_coco(train=3), {"lsp": tiny_coco(train=3, skeleton=LSP)}, repeats={"lsp": 2})
    mixed = data.train_dataset()
    first, second, _ = mixed.sets
    assert set(first.instances.annotation_ids) & set(second.instances.annotation_ids)
    source = CheckpointSource(create_model("teacher_xs", depth=1), "digest")
    path = find_recording(source, mixed, tmp_path)
    recording = record(source, mixed, path)
    assert find_recording(source, mixed, tmp_path) == path
    assert len(recording.persons) == len(first) + len(second)
    assert not len(recording.missing_persons(mixed))
    apart = [record(source, one, tmp_path / str(number)) for number, one in enumerate((first, second))]
    names = recording.about["joints"]
    for index, person in enumerate(recording.persons):
        alone = apart[int(index >= len(first))]
        row = index % len(first) if index < len(first) else index - len(first)
        assert np.array_equal(person["box"], alone.persons["box"][row])
        for joint, name in enumerate(alone.about["joints"]):
            if name in names:
                assert np.array_equal(recording.maps[index, names.index(name)], alone.maps[row, joint])
    teacher = RecordedTeacher(recording, check=False)
    teacher.set_student(create_model("student_xs", depth=1, skeleton=COCO))
    assert f"{len(mixed)} persons" in teacher.check(data)
    batch = PoseBatch(*map(torch.stack, zip(mixed[0], mixed[len(mixed) - 1], strict=True)))
    assert torch.isfinite(teacher(batch).heatmaps).all()
    assert (teacher(batch).trust > 0).any(dim=1).all()


def test_a_mixture_has_the_attributes_of_a_set(two):
    first, second = two
    mixed = MixedPersons([first, second, second], COCO)
    images = [mixed[index].image_id.item() for index in range(len(mixed))]
    assert images == mixed.instances.image_ids.tolist()
    assert [mixed[index].annotation_id.item() for index in range(len(mixed))] == mixed.instances.annotation_ids.tolist()
    assert set(images) <= set(mixed.image_ids)
    assert len(set(mixed.image_ids)) == len(first.image_ids) + len(second.image_ids)
    for index in (0, len(first), len(mixed) - 1):
        dataset = first if index < len(first) else second
        row = index if index < len(first) else (index - len(first)) % len(second)
        file = dataset.image_file(int(dataset.instances.image_ids[row]))
        assert mixed.image_file(images[index]) == file
        assert np.array_equal(mixed.read_image(images[index]), read_image(file))
    public = {name for name in (*vars(first), *dir(type(first))) if name[0] != "_"}
    assert public - {*vars(mixed), *dir(type(mixed))} == {"augmentation"}
    with pytest.raises(DistilPoseError, match=r"several annotation files \(train\.json \+ train\.json\)"):
        _ = mixed.annotations_file
    assert len(mixed.distinct) == len(first) + len(second)
    with pytest.raises(KeyError):
        mixed.image_file(10**9)


def test_ids_that_do_not_fit():
    big = np.array([2**62])
    with pytest.raises(DistilPoseError, match="64 bits"):
        _shifts([big, big, big])
    assert _shifts([np.array([-5, 3]), np.array([-5, 3]), np.array([7])]) == [0, 9, 13]


def test_every_set_takes_the_input_size_of_the_first(tiny_coco, caplog):
    files = ("annotations/train.json", "train", "annotations/val.json", "val")
    others = {"lsp": CocoDataModule(tiny_coco(train=3, skeleton=LSP), *files, input_size=(96, 72), num_workers=0)}
    with caplog.at_level("INFO"):
        data = MixedDataModule(tiny_coco(train=3), *files, **OPTIONS, num_workers=0, others=others)
    assert {tuple(person.image.shape) for person in data.train_dataset()} == {(3, 64, 48)}
    assert "data.others.lsp takes the mixture's input_size=[64, 48]" in caplog.text


def test_the_mean_pose_of_several_sets(two):
    first, _ = two
    pose = mean_pose(MixedPersons([first, first], COCO))
    torch.testing.assert_close(pose, mean_pose(first))
    wide = CocoKeypoints(first.annotations_file, first.folder, **OPTIONS, padding=2.0)
    places = predict_mean_pose(
        pose, MixedPersons([first, wide], COCO)
    ).keypoints  # each person's crop has its set's padding
    torch.testing.assert_close(places[len(first) :], predict_mean_pose(pose, wide).keypoints)
    assert mean_pose(MixedPersons(two, COCO)).shape == (17, 2)


def test_sets_of_different_crop_size(two, tiny_coco):
    with pytest.raises(DistilPoseError, match=r"\(64, 48\).*\(96, 72\).*input_size"):
        MixedPersons([two[0], persons(tiny_coco(), input_size=(96, 72))], COCO)


def test_coco_and_leeds_sports(shared_data):
    """Real photographs: each joint comes from its set, and joints that the set lacks have weight 0."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", [
            "data=coco_lspet", f"data.root={shared_data / 'coco-mini'}", f"data.others.lspet.root={shared_data / 'lspet'}",
            "model=student_xs", "augmentation=none", "data.num_workers=0", "data.limit_train=40",
            "data.others.lspet.limit_train=60",
        ])  # fmt: skip
    data = instantiate(cfg.data)
    mixed = data.train_dataset()
    coco, lspet = mixed.sets
    assert (len(coco), len(lspet)) == (40, 60)
    assert mixed.skeleton == coco.skeleton
    for index in range(0, 60, 7):
        sample, original = mixed[40 + index], lspet[index]
        assert sample.weights.sum() <= original.weights.sum()
        for joint, name in enumerate(mixed.skeleton.names):
            if name not in lspet.skeleton.names:
                assert sample.weights[joint] == 0
            else:
                assert torch.equal(sample.keypoints[joint], original.keypoints[lspet.skeleton.names.index(name)])
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (32, 3, 64, 48)
    assert data.val_dataset().annotations_file.name == "person_keypoints_val2017.json"
