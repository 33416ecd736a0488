"""The site of the documents: links, API reference, packages of the architecture page, figures, and the notebook."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import nbclient
import nbformat
import pytest
import yaml
from test_architecture import COMMANDS, LAYERS, MODULES
from test_architecture import ROOT as PACKAGE

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
BUILD = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]


def module_name(path: Path) -> str:
    return ".".join(("distilpose", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def exported(tree: ast.Module) -> list[str] | None:
    """`__all__` of a module, None without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return ast.literal_eval(node.value)
    return None


def public_names() -> dict[str, set[str]]:
    """By module, its public names: `__all__`, else the functions and classes that have a docstring.

    If a package has `__all__`, the names of its modules do not count. Commands are documented in the guides.
    """
    trees = {module_name(path): ast.parse(path.read_text()) for path in [*MODULES, PACKAGE / "__init__.py"]}
    names = {}
    for name, tree in trees.items():
        package, _, last = name.rpartition(".")
        top = name.partition(".")[2].partition(".")[0]
        covered = package not in ("", "distilpose") and exported(trees[f"distilpose.{top}"]) is not None
        if last.startswith("_") or covered or top == "cli" or top in COMMANDS - {"runtime"}:
            continue
        defined = {
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_" and ast.get_docstring(node)
        }
        names[name] = {public for public in exported(tree) or defined if not public.startswith("_")}
    return {name: public for name, public in names.items() if public}


def api_blocks() -> dict[str, bool]:
    """Modules and names on the API pages, and whether their submodules are shown too."""
    blocks = {}
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for target, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", page.read_text(), re.MULTILINE):
            blocks[target] = bool(((yaml.safe_load(options) or {}).get("options") or {}).get("show_submodules"))
    return blocks


def test_every_public_name_is_on_an_api_page():
    blocks = api_blocks()
    missing = [
        name
        for name in public_names()
        if name not in blocks and not any(deep and name.startswith(f"{block}.") for block, deep in blocks.items())
    ]
    assert not missing


def test_every_api_page_is_on_the_site():
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    assert {f"api/{page.name}" for page in (ROOT / "docs" / "api").glob("*.md")} == set(re.findall(r"api/\w+\.md", nav))


def test_the_architecture_page_draws_the_packages():
    drawn = re.findall(r"^ ?\d+  (\w+(?: \w+)*)", ARCHITECTURE, re.MULTILINE)
    assert [set(line.split()) for line in drawn] == [set(layer) for layer in LAYERS]


def test_the_files_of_the_architecture_page_exist():
    paths = set(re.findall(r"`((?:src|conf|tests|docs|scripts)/[\w./]+)`", ARCHITECTURE))
    assert len(paths) > 30
    assert not [path for path in paths if "NAME" not in path and not (ROOT / path).exists()]


@pytest.mark.slow
def test_every_page_is_built_and_every_link_leads_somewhere(tmp_path):
    done = subprocess.run([*BUILD, tmp_path / "site"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [page.read_text() for page in (tmp_path / "site" / "api").glob("*/index.html")]
    assert not [page for page in pages if "//fonts.g" in page], "nothing is loaded from elsewhere"
    anchors = {anchor for page in pages for anchor in re.findall(r'(?:id="|<code>)(distilpose[\w.]*)', page)}
    # a name defined in a module of the package has its anchor below that module
    missing = {
        f"{module}.{name}"
        for module, names in public_names().items()
        for name in names
        if not any(anchor.startswith(f"{module}.") and anchor.endswith(f".{name}") for anchor in anchors)
    }
    assert not missing


@pytest.mark.slow
def test_a_link_that_leads_nowhere_fails(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# One\n\n[there](two.md) and [below](#nothing)\n")
    settings = (ROOT / "mkdocs.yml").read_text().partition("nav:\n")[0].replace("[src]", f"[{ROOT / 'src'}]")
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = subprocess.run([*BUILD, tmp_path / "site"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "two.md" in done.stdout + done.stderr
    assert "#nothing" in done.stdout + done.stderr


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
