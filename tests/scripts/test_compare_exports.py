"""What is compared is measured by people (docs/export.md); here, how it ends on a mistake."""

from __future__ import annotations

import pytest


def test_a_missing_annotation_file_is_a_sentence(load_script, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*none\.json does not exist"):
        load_script("compare_exports").main([str(tmp_path / "none.json"), str(tmp_path), str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()
