from __future__ import annotations

from distilpose.cli.resolvers import run_directory


def test_a_resumed_run_writes_to_its_folder_and_another_to_a_fresh_one(tmp_path):
    file = tmp_path / "last.ckpt"
    file.touch()
    assert run_directory(str(tmp_path), "fresh") == str(tmp_path)
    assert run_directory(str(file), "fresh") == "fresh"
    assert run_directory(None, "fresh") == "fresh"
    assert run_directory("auto", "runs/name/time") == "runs/name"
