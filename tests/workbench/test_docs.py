"""Documents that are generated are up to date, and the code in documents runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.frontends import frontend_kinds
from models.registry import families
from saliency.methods import METHODS
from workbench.docs_tables import needs, registry_page, table

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_registry_page_is_up_to_date() -> None:
    page = registry_page()
    for name in (*families(), *METHODS, *frontend_kinds()):
        assert f"| `{name}` |" in page
    stored = (DOCS / "registry.md").read_text(encoding="utf-8")
    assert stored == page, "run: python -m workbench.docs_tables > docs/registry.md"


def test_tables_have_as_many_cells_in_every_row() -> None:
    assert table(("a", "b"), [("x | y", "z")]) == "| a | b |\n| --- | --- |\n| x \\| y | z |\n"
    rows = [line for line in registry_page().splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert counts <= {4, 6, 7, 8}


def test_what_methods_need_is_found_out() -> None:
    assert needs("gradient") == "gradients" and needs("occlusion") == "nothing"
    assert needs("grad_cam") == "a layer that can be laid out over time and frequency"


def blocks(document: str) -> list[str]:
    text = (DOCS / document).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", blocks("add-a-model.md"))
def test_code_of_add_a_model_runs(code: str, tmp_path: Path) -> None:
    assert len(code.splitlines()) <= 35
    environment_root = str(DOCS.parent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {environment_root!r})\n{code}"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for label in ("dog", "rain", "clock"):
        assert label in done.stdout


def test_there_is_code_to_run() -> None:
    assert len(blocks("add-a-model.md")) == 1
