"""Every file of a model holds what decides its predictions."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.inference.predictor import Predictor
from distilpose.models import create_model, load_model, save_model
from distilpose.models.checkpoint import saved_padding
from distilpose.models.prediction_settings import prediction_settings
from distilpose.skeleton import Skeleton

XS = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2, "input_size": (32, 24)}
NAMES = ["Kopf", "linke Hand", "rechte Hand"]  # flip pairs that no rule derives from the names


def write_ckpt(model, path):
    """A checkpoint with the parts that a training saves."""
    torch.save(
        {
            "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
            "hyper_parameters": {"model": model.config, "prediction": prediction_settings(model)},
        },
        path,
    )
    return path


def write_safetensors(model, path):
    return save_model(model, path)


@pytest.mark.parametrize(
    ("write", "suffix"), [(write_ckpt, "ckpt"), (write_safetensors, "safetensors")], ids=["ckpt", "safetensors"]
)
@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_a_file_alone_predicts_as_the_model_that_was_saved(tmp_path, write, suffix, kind):
    torch.manual_seed(0)
    skeleton = Skeleton.from_names(NAMES, flip_pairs=[(1, 2)])
    options = {"heatmap_activation": "softmax"} if kind == "teacher" else {"scores_trained": False}
    normalisation = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    model = create_model(f"{kind}_xs", skeleton=skeleton, **XS, **normalisation, **options).eval()
    model.padding, model.flip_test = 1.6, True
    path = write(model, tmp_path / f"copied.{suffix}")
    loaded = load_model(path)
    for name in ("padding", "flip_test", "mean", "std", "input_size", "scores_trained", "skeleton", "config"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert loaded.skeleton.flip_order == [0, 2, 1]
    assert saved_padding(path) == 1.6
    # box 20 x 40 in the middle of an image: other padding, another crop
    image = np.random.default_rng(0).integers(0, 255, (80, 60, 3), dtype=np.uint8)
    of_file, of_model, of_default = (
        Predictor(source, device="cpu", flip_test=True, padding=padding)(image, [[20, 20, 20, 40]]).keypoints
        for source, padding in ((path, None), (model, 1.6), (model, 1.25))
    )
    assert torch.equal(of_file, of_model)
    assert not torch.equal(of_file, of_default)


@pytest.mark.parametrize("padding", [None, "1.5", -1, float("nan"), float("inf"), [1.5]])
def test_a_padding_that_is_no_number_is_unknown(tmp_path, padding):
    model = create_model("student_xs", **XS)
    content = {"model": model.config, "prediction": {"padding": padding}}
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": content}, tmp_path / "a.ckpt")
    assert saved_padding(tmp_path / "a.ckpt") is None
    assert load_model(tmp_path / "a.ckpt").padding is None


def test_a_file_with_another_decoding_is_not_decoded_as_ours(tmp_path):
    model = create_model("teacher_xs", **XS)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    content = {"model": model.config, "prediction": {**prediction_settings(model), "decoding": "expectation"}}
    torch.save({"state_dict": weights, "hyper_parameters": content}, tmp_path / "future.ckpt")
    with pytest.raises(DistilPoseError, match=r"future\.ckpt.*decoding expectation.*update"):
        load_model(tmp_path / "future.ckpt")


def test_a_saved_model_states_its_padding_only_if_it_is_known(tmp_path):
    import safetensors

    for name, padding in (("known", 1.5), ("unknown", None)):
        path = save_model(create_model("student_xs", **XS), tmp_path / f"{name}.safetensors", padding=padding)
        with safetensors.safe_open(path, "pt") as file:
            metadata = json.loads(file.metadata()["distilpose"])
        assert metadata.get("padding", None) == padding
        assert ("padding" in metadata) is (padding is not None)
        assert load_model(path).padding == padding


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, DistilPoseError), (errno.EMFILE, OSError), (errno.ENOMEM, OSError)]
)
def test_a_file_that_may_not_be_opened_is_not_called_damaged(number, kind, tmp_path, monkeypatch):
    file = write_ckpt(create_model("student_xs", **XS), tmp_path / "a.ckpt")

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(file))

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(kind, match=os.strerror(number)) as error:
        load_model(file)
    assert "damaged" not in str(error.value)
