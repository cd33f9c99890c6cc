"""Rules that hold for the whole source: nothing unsafe is loaded, layers point one way, networks can be built empty."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A package may import itself and what stands after it.
LAYERS = ["workbench", "saliency", "models"]
SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py") if "node_modules" not in path.parts)
# Reads published annotation tables through an unpickler that admits containers of numbers only.
RESTRICTED = "models/data/restricted_pickle.py"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(source: str | Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or attribute, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else f".{node.attr}"
    return ""


def meant(tree: ast.Module) -> dict[str, str]:
    """Local names and what they were imported as."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Full names of everything that is called, as far as it can be told from the source."""
    names = meant(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = dotted(node.func).partition(".")
            full = names.get(first, first)
            yield (f"{full}.{rest}" if rest else full), node


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def unsafe_calls(tree: ast.Module) -> list[str]:
    """What could run code that is hidden in a file."""
    found = []
    for name, call in calls(tree):
        allow_pickle = keyword(call, "allow_pickle")
        loader = call.args[1] if len(call.args) > 1 else keyword(call, "Loader")
        if (
            name in ("eval", "exec", "os.system", "pandas.read_pickle", "numpy.lib.format.read_array_header")
            or name.split(".")[0]
            in ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
            or (name == "torch.load" and not is_true(keyword(call, "weights_only")))
            or name in ("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter")
            or name in ("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all")
            or (name == "yaml.load" and not (loader is not None and dotted(loader).endswith("SafeLoader")))
            or (
                allow_pickle is not None
                and not (isinstance(allow_pickle, ast.Constant) and allow_pickle.value is False)
            )
            or is_true(keyword(call, "shell"))
            or is_true(keyword(call, "trust_remote_code"))
        ):
            found.append(f"line {call.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_that_could_run_a_file_s_code_is_called(path: Path) -> None:
    assert unsafe_calls(tree_of(path)) == []


def test_only_one_module_unpickles_and_that_one_chooses_what() -> None:
    """Others may name pickle's errors, and nothing else of it."""
    for path in SOURCES:
        tree = tree_of(path)
        names = meant(tree)
        used = {
            f"{names[node.value.id]}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and names.get(node.value.id) == "pickle"
        } | {name for name in names.values() if name.startswith("pickle.")}
        allowed = {"pickle.UnpicklingError", "pickle.PickleError"}
        if name_of(path) == RESTRICTED:
            assert "pickle.Unpickler" in used
            assert any(isinstance(node, ast.FunctionDef) and node.name == "find_class" for node in ast.walk(tree))
            allowed |= {"pickle.Unpickler"}
        assert used <= allowed, name_of(path)


@pytest.mark.parametrize(
    "source",
    [
        "import torch; torch.load('x')", "import torch; torch.load('x', weights_only=False)",
        "import torch as t; t.load('x', 'cpu', weights_only=flag)", "from torch import load; load('x')",
        "import pickle; pickle.load(f)", "import pickle; pickle.loads(b)", "from pickle import Unpickler; Unpickler(f).load()",
        "import yaml; yaml.load(f)", "import yaml; yaml.load(f, yaml.Loader)", "import yaml; yaml.load(f, Loader=yaml.FullLoader)",
        "from yaml import unsafe_load as read; read(f)", "import numpy as np; np.load(f, allow_pickle=True)",
        "import numpy as np; np.load(f, allow_pickle=maybe)", "import pandas as pd; pd.read_pickle(f)", "eval('1')",
        "import subprocess; subprocess.run('ls', shell=True)", "import joblib; joblib.load(f)",
        "from transformers import AutoModel; AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_search_finds_unsafe_calls(source: str) -> None:
    assert len(unsafe_calls(tree_of(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import torch; torch.load('x', weights_only=True)",
        "import yaml; yaml.safe_load(f)",
        "import json; json.load(f)",
        "import yaml; yaml.load(f, Loader=yaml.CSafeLoader)",
        "import numpy as np; np.load(f, allow_pickle=False)",
        "network.eval()",
        "import subprocess; subprocess.run(['ls'])",
    ],
)
def test_the_search_leaves_safe_calls_alone(source: str) -> None:
    assert unsafe_calls(tree_of(source)) == []


def upward_imports(tree: ast.Module, layer: str) -> list[str]:
    """Imports, anywhere in a module, of a layer above its own or of the tests."""
    above = {*LAYERS[: LAYERS.index(layer)], "tests"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module") and node.args:
            argument = node.args[0]
            found += [argument.value] if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else []
    return [module for module in found if module.split(".")[0] in above]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_layers_import_downwards_only(path: Path) -> None:
    assert upward_imports(tree_of(path), name_of(path).split("/")[0]) == []


@pytest.mark.parametrize(
    ("source", "layer"),
    [
        ("import workbench", "saliency"), ("from workbench.analysis import analyze", "models"),
        ("def f():\n    from saliency import methods", "models"), ("import saliency.methods as m", "models"),
        ("import importlib; importlib.import_module('workbench.figures')", "models"), ("import tests.conftest", "workbench"),
    ],
)  # fmt: skip
def test_the_search_finds_upward_imports(source: str, layer: str) -> None:
    assert len(upward_imports(tree_of(source), layer)) == 1
    assert upward_imports(tree_of("import models\nfrom models.card import Card"), layer) == []


def hidden_buffers(tree: ast.Module) -> list[int]:
    """Lines that register a buffer which no checkpoint would fill."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "register_buffer":
            persistent = node.args[2] if len(node.args) > 2 else keyword(node, "persistent")
            if persistent is not None and not is_true(persistent):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if name_of(p).startswith(("models/families/", "models/layers/"))], ids=name_of
)
def test_networks_have_no_buffers_that_a_checkpoint_would_not_fill(path: Path) -> None:
    assert hidden_buffers(tree_of(path)) == []


def test_the_search_finds_hidden_buffers() -> None:
    assert hidden_buffers(
        tree_of("self.register_buffer('a', t, persistent=False)\nself.register_buffer('b', t, False)")
    ) == [1, 2]
    assert hidden_buffers(tree_of("self.register_buffer('a', t)\nself.register_buffer('b', t, persistent=True)")) == []
    # Front ends are built from the card, so there the search has something to find.
    assert hidden_buffers(tree_of(ROOT / "models" / "frontends" / "kaldi.py"))


def test_there_is_something_to_search() -> None:
    assert {name_of(path).split("/")[0] for path in SOURCES} == set(LAYERS) and len(SOURCES) > 100
