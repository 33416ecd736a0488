"""Files: what is saved is loaded, and every kind of bad file has its own error."""

from __future__ import annotations

import json

import lightning.pytorch as pl
import pytest
import safetensors.torch
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from safetensors import safe_open

from distilpose import load_model as load_from_package
from distilpose.errors import DistilPoseError
from distilpose.models import create_model, load_model, save_model
from distilpose.skeleton import Skeleton

XS = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2, "input_size": (32, 24)}


@pytest.fixture
def model():
    body = Skeleton.from_names(["left_hand", "right_hand", "head"], limbs=[(0, 2)])
    model = create_model("student_xs", skeleton=body, scores_trained=False, **XS)
    model.train()(torch.randn(4, 3, 32, 24))  # batch statistics that differ from the initial ones
    return model


def same(first, second) -> bool:
    other = second.state_dict()
    return first.state_dict().keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in first.state_dict().items()
    )


def test_safetensors_round_trip(model, tmp_path):
    model.set_network_normalisation((0.5, 0.5, 0.5), model.std)
    path = save_model(model.to(memory_format=torch.channels_last), tmp_path / "new" / "model.safetensors")
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    loaded = load_from_package(path)
    assert same(loaded, model)
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.skeleton == model.skeleton
    assert loaded.input_size == (32, 24)
    assert (loaded.network_mean, loaded.network_std) == ((0.5, 0.5, 0.5), model.std)
    assert loaded.scores_trained is False
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["distilpose"])
    assert metadata["format"] == 1
    assert metadata["config"]["skeleton"]["names"] == ["left_hand", "right_hand", "head"]


def test_half_precision_halves_the_file_and_rounds_the_weights(model, tmp_path):
    model.head.linear.weight.data[0, 0] = 1 / 3
    whole, half = (
        save_model(model, tmp_path / "whole.safetensors"),
        save_model(model, tmp_path / "half.safetensors", half=True),
    )
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded = load_from_package(half)
    for name, value in model.state_dict().items():
        read = loaded.state_dict()[name]
        assert read.dtype == value.dtype
        assert torch.equal(read, value.half().to(value.dtype) if value.is_floating_point() else value), name
    model.head.linear.weight.data[0, 0] = 1e5
    with pytest.raises(DistilPoseError, match=r"head\.linear\.weight.*half=false"):
        save_model(model, tmp_path / "large.safetensors", half=True)
    assert not (tmp_path / "large.safetensors").exists()


def test_files_are_overwritten_on_request_only(model, tmp_path):
    path = save_model(model, tmp_path / "model.safetensors")
    before = path.read_bytes()
    with pytest.raises(DistilPoseError, match=r"model\.safetensors"):
        save_model(create_model("student_xs", **XS), path)
    assert path.read_bytes() == before
    save_model(create_model("student_xs", **XS), path, overwrite=True)
    assert path.read_bytes() != before
    with pytest.raises(DistilPoseError, match=r"must end in \.safetensors"):
        save_model(model, tmp_path / "model.pt")
    with pytest.raises(DistilPoseError, match="cannot be written"):
        save_model(model, path / "below_a_file" / "model.safetensors")


class Module(pl.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.save_hyperparameters({"model": model.config})

    def training_step(self, images):
        return self.model(images).keypoints.square().mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(8, 3, 32, 24), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_lightning_checkpoint(model, tmp_path, averaged):
    class KeepBothStates(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.save_checkpoint(tmp_path / "epoch.ckpt")
            self.raw = {name: value.clone() for name, value in module.model.state_dict().items()}

    keeper = KeepBothStates()
    callbacks = [keeper] + ([EMAWeightAveraging(decay=0.5)] if averaged else [])
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(model))
    loaded = load_model(tmp_path / "epoch.ckpt")
    assert not loaded.training
    assert loaded.skeleton == model.skeleton
    assert loaded.scores_trained is False
    assert same(loaded, model)  # after a training with averaging, the module holds the average
    is_raw = all(torch.equal(value, keeper.raw[name]) for name, value in loaded.state_dict().items())
    assert is_raw is not averaged


def test_bad_files_are_named(model, tmp_path):
    with pytest.raises(DistilPoseError, match=r"absent\.ckpt"):
        load_model(tmp_path / "absent.ckpt")
    intact = save_model(model, tmp_path / "intact.safetensors").read_bytes()
    torch.save({"state_dict": {}, "hyper_parameters": {"model": model.config}}, tmp_path / "intact.ckpt")
    for name, content in {
        "short.safetensors": intact[:-100],
        "tiny.safetensors": intact[:5],
        "short.ckpt": (tmp_path / "intact.ckpt").read_bytes()[:-100],
        "empty.ckpt": b"",
        "text.ckpt": b"this is not a checkpoint",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DistilPoseError, match=name):
            load_model(tmp_path / name)

    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "foreign.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": [1, 2]}, tmp_path / "settings.ckpt")
    for key, value in (("input_size", [64]), ("heads", 0), ("skeleton", [])):
        file = tmp_path / f"{key}.ckpt"
        torch.save({"state_dict": {}, "hyper_parameters": {"model": model.config | {key: value}}}, file)
    for name in (
        "foreign.safetensors", "foreign.ckpt", "list.ckpt", "settings.ckpt", "input_size.ckpt", "heads.ckpt", "skeleton.ckpt"
    ):  # fmt: skip
        with pytest.raises(DistilPoseError, match=name):
            load_model(tmp_path / name)

    torch.save({"state_dict": {}, "hyper_parameters": {"model": torch.nn.ReLU()}}, tmp_path / "object.ckpt")
    with pytest.raises(DistilPoseError, match=r"object\.ckpt.*state_dict"):
        load_model(tmp_path / "object.ckpt")


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("student.onnx", b"\x08\x07", r"student\.onnx.*distilpose\.runtime"),
        ("photo.jpg", b"\xff\xd8\xff\xe0", r"photo\.jpg.*PyTorch"),
        ("notes.ckpt", b"these are notes", r"notes\.ckpt.*PyTorch"),
    ],
)
def test_files_of_another_kind_raise_an_error(tmp_path, name, content, facts):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilPoseError, match=facts) as error:
        load_model(tmp_path / name)
    assert "weights_only=False" not in str(error.value)


def test_weights_of_another_model_are_named(model, tmp_path):
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    other = create_model("student_xs", num_keypoints=5, **XS).config
    torch.save({"state_dict": weights, "hyper_parameters": {"model": other}}, tmp_path / "k.ckpt")
    with pytest.raises(DistilPoseError, match=r"5 keypoints.*encoder\.keypoint_tokens"):
        load_model(tmp_path / "k.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"model": other}}, tmp_path / "none.ckpt")
    with pytest.raises(DistilPoseError, match=r"none\.ckpt.*Missing"):
        load_model(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"model": {"name": "student_xxl"}}}, tmp_path / "future.ckpt")
    with pytest.raises(DistilPoseError, match=r"future\.ckpt.*'student_xxl'"):
        load_model(tmp_path / "future.ckpt")


def test_a_checkpoint_cut_off_anywhere_is_truncated(tmp_path):
    """At some lengths torch raises an OSError without a file name, which is no matter of permissions."""
    whole, path = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(20_000)}}, whole)
    content = whole.read_bytes()
    for share in (0.1, 0.25, 0.5, 0.75, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DistilPoseError, match="it is truncated"):
            load_model(path)
