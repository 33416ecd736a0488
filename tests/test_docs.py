"""The site of the documents: every link leads somewhere, every figure is drawn, the notebook runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]


@pytest.mark.slow
def test_every_page_is_built_and_every_link_leads_somewhere(tmp_path):
    told = subprocess.run([*BUILD, tmp_path / "site"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    built = (tmp_path / "site" / "api" / "models" / "index.html").read_text()
    assert "create_model" in built
    assert "//fonts.g" not in built, "nothing is loaded from elsewhere"


@pytest.mark.slow
def test_a_link_that_leads_nowhere_fails(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# One\n\n[there](two.md) and [below](#nothing)\n")
    settings = (ROOT / "mkdocs.yml").read_text().partition("nav:\n  - Quick")[0].replace("[src]", f"[{ROOT / 'src'}]")
    (tmp_path / "mkdocs.yml").write_text(settings)
    told = subprocess.run([*BUILD, tmp_path / "site"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode != 0
    assert "two.md" in told.stdout + told.stderr
    assert "#nothing" in told.stdout + told.stderr


@pytest.mark.slow
def test_the_methods_figures_are_drawn(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "draw_method.py", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("flow", "crop", "maps", "pull"):
        drawn = cv2.imread(str(tmp_path / f"method_{name}.png"))
        assert drawn.std() > 10
        assert f"images/method_{name}.png" in (ROOT / "docs" / "method.md").read_text()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONS", "40")
    monkeypatch.setenv("EPOCHS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(ROOT / "docs" / "notebook.ipynb", 4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    drawn = [
        output for cell in book.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(drawn) == 1
    assert (tmp_path / "student.safetensors").is_file()
