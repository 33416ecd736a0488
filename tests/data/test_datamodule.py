"""The data module: shards of processes, order, limits, and the shipped configurations."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import LightningModule, Trainer

from distilpose.data.augmentation import PoseAugmentation
from distilpose.data.datamodule import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO, Skeleton

CONF = Path(__file__).parents[2] / "conf"
PATHS = {
    "train_annotations": "annotations/train.json",
    "train_images": "train",
    "val_annotations": "annotations/val.json",
    "val_images": "val",
}


def module(root, **options):
    defaults = {"input_size": (32, 24), "batch_size": 4, "num_workers": 0}
    return CocoDataModule(root, **PATHS | defaults | options)


def ids(loader):
    return [number for batch in loader for number in batch.annotation_id.tolist()]


def as_process(data, rank, world):
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, accumulate_grad_batches=1)
    return data


def test_skeleton_is_known_before_setup(tiny_coco):
    root = tiny_coco()
    assert module(root).skeleton == COCO
    assert module(root, skeleton={"sigmas": [0.2] * 17}).skeleton.sigmas == (0.2,) * 17


def test_one_process_sees_everyone_once(tiny_coco):
    data = module(tiny_coco(train=9, val=5))
    data.setup("fit")
    everyone = sorted(data.val_dataset().instances.annotation_ids.tolist())
    assert sorted(ids(data.val_dataloader())) == everyone
    train = data.train_dataset().instances.annotation_ids.tolist()
    trained = ids(data.train_dataloader())
    assert len(trained) == len(train) // 4 * 4
    assert len(set(trained)) == len(trained)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_training_and_evaluation(tiny_coco, world):
    root = tiny_coco(train=9, val=4)
    evaluated, trained, lengths = [], [], set()
    for rank in range(world):
        data = as_process(module(root, batch_size=1), rank, world)
        evaluated += ids(data.val_dataloader())
        share = ids(data.train_dataloader())
        trained += share
        lengths.add(len(share))
    everyone = data.val_dataset().instances.annotation_ids.tolist()
    assert len(everyone) == 5
    assert sorted(evaluated) == sorted(everyone)
    assert len(lengths) == 1
    persons = set(data.train_dataset().instances.annotation_ids.tolist())
    assert set(trained) <= persons
    assert len(set(trained)) == len(trained) == len(persons) // world * world  # nobody twice


def test_training_order_depends_on_seed_and_epoch(tiny_coco):
    root = tiny_coco(train=12)

    def order(seed, epoch):
        loader = module(root, seed=seed, batch_size=2).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return ids(loader)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_views_depend_on_seed_and_epoch_but_not_on_processes(tiny_coco):
    root = tiny_coco(train=5)

    def crops(epoch, seed=0, workers=0, rank=0, world=1):
        data = module(root, augmentation=PoseAugmentation(), seed=seed, num_workers=workers, batch_size=1)
        loader = as_process(data, rank, world).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return {int(batch.annotation_id): batch.image for batch in loader}

    def same(first, second):
        return [torch.equal(first[number], second[number]) for number in second]

    plain = crops(3)
    assert all(same(plain, crops(3)))
    assert all(same(plain, crops(3, workers=2)))
    assert all(same(plain, crops(3, rank=1, world=2)))
    assert not any(same(plain, crops(4)))
    assert not any(same(plain, crops(3, seed=1)))


def test_a_share_of_the_labels(tiny_coco):
    root = tiny_coco(train=12)
    everyone = module(root).train_dataset().instances

    def labelled(**options):
        people = module(root, **options).train_dataset().instances
        has = people.labelled.any(axis=1)
        return set(people.annotation_ids[has].tolist()), len(has)

    half, count = labelled(label_share=0.5)
    assert len(half) == count == round(len(everyone.image_ids) / 2)
    assert labelled(label_share=0.5, unlabelled=True) == (half, len(everyone.image_ids))
    assert labelled(label_share=0.5, unlabelled=True, seed=3)[0] == half
    assert labelled(label_share=0.2)[0] < half < labelled(label_share=0.9)[0]
    assert labelled(label_share=0, unlabelled=True) == (set(), len(everyone.image_ids))
    assert module(root, label_share=0.5).val_dataset().instances.labelled.any()
    with pytest.raises(DistilPoseError, match=r"data\.label_share=0 leaves none of 17 persons with labels"):
        labelled(label_share=0)


def test_persons_without_keypoints_are_kept_if_unlabelled(tiny_coco):
    root = tiny_coco(train=4)
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    first, second, *rest = content["annotations"]
    del first["keypoints"]
    second["keypoints"], second["num_keypoints"] = [0] * 51, 0
    file.write_text(json.dumps(content))
    data = module(root, unlabelled=True)
    people = data.train_dataset().instances
    assert people.annotation_ids.tolist() == [first["id"], second["id"], *(person["id"] for person in rest)]
    assert not people.labelled[:2].any()
    batch = data.train_dataset()[0]
    assert batch.weights.sum() == 0
    assert torch.isfinite(batch.keypoints).all()
    with pytest.raises(DistilPoseError, match="has no 'keypoints', which COCO format requires"):
        module(root).train_dataset()


def test_less_than_a_batch_still_trains(tiny_coco):
    data = module(tiny_coco(train=3), batch_size=64)
    assert len(ids(data.train_dataloader())) == len(data.train_dataset())


def test_limits(tiny_coco):
    data = module(tiny_coco(), limit_train=3, limit_val=2)
    assert (len(data.train_dataset()), len(data.val_dataset())) == (3, 2)


def test_detector_boxes(tiny_coco):
    root = tiny_coco()
    with_boxes = module(root, boxes="detections.json")
    loader = with_boxes.evaluation_dataloader(detections=True)
    assert ids(loader) == list(range(len(with_boxes.val_dataset(detections=True))))
    with pytest.raises(DistilPoseError, match=r"data\.boxes=FILE"):
        module(root).evaluation_dataloader(detections=True)


def test_a_missing_box_file_matters_only_if_it_is_read(tiny_coco):
    data = module(tiny_coco(), boxes="absent.json")
    data.setup("fit")
    with pytest.raises(DistilPoseError, match=r"absent\.json does not exist"):
        data.val_dataset(detections=True)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DistilPoseError, match=r"coco/.* does not exist: .*data\.root.*download_coco\.py"):
        _ = module(tmp_path / "coco").skeleton


def test_splits_must_have_the_same_joints(tiny_coco):
    root = tiny_coco()
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"][0] = "snout"
    path.write_text(json.dumps(content))
    with pytest.raises(DistilPoseError, match=r"snout.*two splits of one data set"):
        module(root).setup("fit")


def test_more_processes_than_persons(tiny_coco):
    data = as_process(module(tiny_coco(), limit_val=2), 0, 3)
    with pytest.raises(DistilPoseError, match=r"2 person\(s\).*3 processes"):
        data.val_dataloader()


class Watcher(LightningModule):
    """A module that learns nothing and records the persons of each process."""

    def __init__(self, place):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.place = place
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, _):
        self.seen["train"] += batch.annotation_id.tolist()
        return self.weight.sum() + batch.image.mean()

    def validation_step(self, batch, _):
        self.seen["val"] += batch.annotation_id.tolist()

    def on_fit_end(self):
        rank = dist.get_rank() if dist.is_initialized() else 0
        (self.place / f"{rank}.json").write_text(json.dumps(self.seen))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.slow
def test_two_real_processes(tiny_coco, tmp_path):
    data = module(tiny_coco(train=9, val=6), batch_size=2, limit_val=7, num_workers=1)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, use_distributed_sampler=False, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Watcher(tmp_path), datamodule=data)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    everyone = data.val_dataset().instances.annotation_ids.tolist()
    assert sorted(first["val"] + second["val"]) == sorted(everyone)
    assert len(everyone) == 7
    assert not set(first["train"]) & set(second["train"])


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=list(overrides))


@pytest.mark.parametrize("augmentation", sorted(path.stem for path in (CONF / "augmentation").glob("*.yaml")))
def test_augmentation_configs(tiny_coco, augmentation):
    root = tiny_coco()
    cfg = config("+data=custom", f"+augmentation={augmentation}", f"data.root={root}", "data.num_workers=0", "+seed=5")
    data = instantiate(cfg.data)
    assert isinstance(data.augmentation, PoseAugmentation)
    assert data.seed == 5
    assert data.input_size == (256, 192)
    first, *others = (data.train_dataset()[0].image for _ in range(20))
    assert all(torch.equal(first, other) for other in others) == (augmentation == "none")


def test_input_size_is_the_models(tiny_coco):
    cfg = config("+data=custom", f"data.root={tiny_coco()}", "+model.input_size=[64,48]")
    data = instantiate(cfg.data)
    assert data.augmentation is None
    assert data.val_dataset()[0].image.shape == (3, 64, 48)


@pytest.mark.parametrize(("name", "monitor"), [("coco", "val/AP"), ("lspet", "val/PCK")])
def test_shipped_configs_without_data(name, monitor):
    data = instantiate(config(f"+data={name}", "data.root=nowhere").data)
    assert data.monitor == monitor
    with pytest.raises(DistilPoseError, match=r"nowhere/.* does not exist"):
        data.setup("fit")


def test_real_photographs(shared_data):
    coco = instantiate(
        config(
            "+data=coco",
            f"data.root={shared_data / 'coco-mini'}",
            "data.boxes=person_detection_results/COCO_val2017_detections_subset_person.json",
        ).data
    )
    coco.setup("fit")
    sizes = [len(data) for data in (coco.train_dataset(), coco.val_dataset(), coco.val_dataset(detections=True))]
    assert sizes == [149, 314, 118]
    leeds = instantiate(config("+data=lspet", f"data.root={shared_data / 'lspet'}", "data.limit_train=20").data)
    leeds.setup("fit")
    assert isinstance(leeds.skeleton, Skeleton)
    assert leeds.train_dataset()[3].keypoints.shape == (14, 2)
    assert (len(leeds.train_dataset()), len(leeds.val_dataset())) == (20, 999)
