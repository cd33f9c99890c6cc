"""The registry of families, and what every registered family tells about itself."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from models.errors import SettingsError
from models.network import Network
from models.registry import FamilyInfo, families, family

FAMILIES = families()
NAMES = sorted(FAMILIES)


def test_families_come_in_alphabetical_order() -> None:
    assert list(families()) == NAMES and {"ast", "resnet_attention"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_a_network_in_a_module_of_families(name: str) -> None:
    cls = family(name)
    assert cls is FAMILIES[name] and issubclass(cls, Network) and cls.info.name == name
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name) and cls.__module__.startswith("models.families.")
    for text in (cls.info.title, cls.info.summary, cls.info.citation):
        assert text.strip() == text != ""


def test_no_two_families_have_the_same_title() -> None:
    assert len({cls.info.title for cls in FAMILIES.values()}) == len(NAMES)


def test_one_family_is_imported_alone() -> None:
    """Opening a model must not pay for all the others."""
    code = (
        "import sys; from models.registry import family; family('ast');"
        "print(*sorted(m for m in sys.modules if m.startswith('models.families.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["models.families.ast"]


@pytest.mark.parametrize(
    "name", ["", ".", "ast.nonsense", "no.such", "..errors", "os", "AST", "ast ", "a/b", "__init__"]
)
def test_unknown_families_are_named_and_known_ones_listed(name: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(repr(name))) as caught:
        family(name)
    assert all(known in caught.value.advice for known in NAMES)


def test_views_are_checked() -> None:
    with pytest.raises(ValueError, match="telepathy"):
        FamilyInfo("x", "X", "x", "x", views=frozenset({"attribution", "telepathy"}))
