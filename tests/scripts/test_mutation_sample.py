"""The lines that the mutation sample breaks are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation_sample import CONTROL, MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", [CONTROL, *MUTATIONS], ids=lambda mutation: mutation.what)
def test_the_line_is_there_once(mutation):
    content = Path(ROOT, "src/distilpose", mutation.file).read_text()
    assert content.count(mutation.line) == 1
    assert all((ROOT / "tests" / name).exists() for name in mutation.tests.split())
