"""MATLAB files that unpack to too much."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from distilpose.curation.formats import convert_set
from distilpose.errors import DistilPoseError


def test_a_mat_that_unpacks_to_too_much(sound, tmp_path):
    savemat(tmp_path / "a.mat", {"joints": np.zeros((14, 3, 600_000))}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 1_000_000
    with pytest.raises(DistilPoseError, match="holds 25200000 numbers"):
        convert_set("lsp", tmp_path / "a.mat", sound(images=1).folder, tmp_path / "out.json")


def test_a_structure_that_unpacks_to_too_much(tmp_path, sound, monkeypatch):
    data = sound()
    release = {"RELEASE": {"annolist": np.zeros(2_000_000), "img_train": np.zeros(3)}}
    savemat(tmp_path / "mpii.mat", release, do_compression=True)
    assert (tmp_path / "mpii.mat").stat().st_size < 100_000
    monkeypatch.setattr("distilpose.curation.formats.matlab.MOST_BYTES", 15 * 2**20)
    with pytest.raises(DistilPoseError, match="unpacks to more than 15 MiB"):
        convert_set("mpii", tmp_path / "mpii.mat", data.folder, tmp_path / "out.json")
    monkeypatch.setattr("distilpose.curation.formats.matlab.MOST_BYTES", 17 * 2**20)
    with pytest.raises(DistilPoseError, match="it lists none"):
        convert_set("mpii", tmp_path / "mpii.mat", data.folder, tmp_path / "out.json")
