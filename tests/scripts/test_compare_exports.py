"""The comparison itself is in docs/export.md; here, its error message."""

from __future__ import annotations

import pytest


def test_a_missing_annotation_file(load_script, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*none\.json"):
        load_script("compare_exports").main([str(tmp_path / "none.json"), str(tmp_path), str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()
