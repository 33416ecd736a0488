"""Names, weights and outputs against those of the released implementation."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType

import numpy as np
import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.models import create_model, load_model
from distilpose.models.checkpoint import fit_weights
from distilpose.models.released import ours_to_released, released_kind, released_to_ours

NETS = {
    "student_s": "student_s",
    "student_l": "student_l",
    "teacher_stem": "teacher_stemnet",
    "teacher_hrnet_w48": "teacher_hr48",
}


@pytest.fixture(scope="module")
def filler(release_fixtures) -> ModuleType:
    spec = importlib.util.spec_from_file_location("filler", release_fixtures / "filler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stand_in(release_fixtures, filler):
    """The state dict of a released network, filled with the fixtures' deterministic weights."""

    def make(net: str) -> dict[str, torch.Tensor]:
        keys = json.loads((release_fixtures / f"keys_{net}.json").read_text())["keys"]
        return {name: torch.from_numpy(np.asarray(value)) for name, value in filler.fill_state_dict(keys).items()}

    return make


@pytest.mark.parametrize("name", NETS)
def test_every_released_tensor_converts_both_ways(name, release_fixtures, stand_in):
    keys = json.loads((release_fixtures / f"keys_{NETS[name]}.json").read_text())["keys"]
    state = stand_in(NETS[name])
    weights, tables = released_to_ours(state)
    assert not tables
    model = create_model(name)
    fit_weights(model, weights, "stand-in")
    released = ours_to_released(model)
    assert {key: list(value.shape) for key, value in released.items()} == {key: v["shape"] for key, v in keys.items()}
    assert {key: str(value.dtype) for key, value in released.items()} == {
        key: f"torch.{v['dtype']}" for key, v in keys.items()
    }
    for key, value in state.items():
        assert torch.equal(released[key], value), key


@pytest.mark.parametrize("name", ["student_s", "teacher_stem"])
def test_forward_equals_the_release(name, release_fixtures, filler, stand_in):
    expected = np.load(release_fixtures / f"forward_{NETS[name]}.npz")
    model = create_model(name)
    fit_weights(model, released_to_ours(stand_in(NETS[name]))[0], "stand-in")
    images = torch.from_numpy(filler.make_input(2))
    model.eval()
    with torch.no_grad():
        single, double = model(images), model.double()(images.double())
    np.testing.assert_array_equal(model.float().encoder.positions.numpy(), expected["pos_embedding"])

    # field, the release's name, tolerance in float32
    fields = [("visual_tokens", "vis_token", 2e-4), ("keypoint_tokens", "kpt_token", 2e-4)]
    if name == "student_s":
        fields += [("keypoints", "pred", 2e-5), ("sigmas", "sigma", 2e-5), ("scores", "score", 1e-4)]
    else:
        fields += [("heatmaps", "pred", 1e-4)]
    for field, name_there, tolerance in fields:
        full, strided = expected[name_there], expected[f"f64_{name_there}"]
        value = getattr(single, field).numpy().reshape(full.shape)
        np.testing.assert_allclose(value, full, rtol=0, atol=tolerance, err_msg=field)
        # the float64 values are stored with a stride, which is found from the float32 values
        value = getattr(double, field).numpy().reshape(full.shape)[_stride_of(full, strided)]
        np.testing.assert_allclose(value, strided, rtol=0, atol=1e-9, err_msg=field)


def _stride_of(full: np.ndarray, strided: np.ndarray) -> tuple[slice, ...]:
    steps = tuple(slice(None, None, -(-long // short)) for long, short in zip(full.shape, strided.shape, strict=True))
    np.testing.assert_allclose(full[steps], strided, atol=1e-3)
    return steps


def test_unknown_and_foreign_names_are_named(stand_in):
    weights, _ = released_to_ours(stand_in("student_s") | {"keypoint_head.tokenhead.surprise": torch.zeros(1)})
    with pytest.raises(DistilPoseError, match=r"keypoint_head\.tokenhead\.surprise"):
        fit_weights(create_model("student_s"), weights, "stand-in")
    with pytest.raises(DistilPoseError, match=r"keypoint_head\.tokenhead\."):
        released_to_ours({"conv.weight": torch.zeros(1)})
    assert released_kind({"keypoint_head.tokenpose.keypoint_token": 0}) == "teacher"


def test_load_model_points_from_released_files_to_convert(stand_in, tmp_path):
    path = tmp_path / "released.pth"
    torch.save({"meta": {}, "state_dict": stand_in("student_s")}, path)
    with pytest.raises(DistilPoseError, match=r"released\.pth.*distilpose\.convert"):
        load_model(path)
