"""MATLAB files that unpack to too much."""

from __future__ import annotations

import numpy as np
from scipy.io import savemat

from distilpose.curation.conversion import matlab


def test_a_structure_that_unpacks_to_too_much(rejected, sound, tmp_path, monkeypatch):
    data = sound()
    release = {"RELEASE": {"annolist": np.zeros(2_000_000), "img_train": np.zeros(3)}}
    savemat(tmp_path / "mpii.mat", release, do_compression=True)
    assert (tmp_path / "mpii.mat").stat().st_size < 100_000
    for mebibytes, fact in ((15, "more than 15 MiB"), (17, "lists no persons")):
        monkeypatch.setattr(matlab, "MAX_BYTES", mebibytes * 2**20)
        rejected("mpii", tmp_path / "mpii.mat", data.folder, fact)
