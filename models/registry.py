"""The registry of model families: menus, documentation and tests are generated from it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from models.errors import SettingsError

if TYPE_CHECKING:
    from models.network import Network

VIEWS = ("attribution", "time_attention", "token_attention", "playback", "graph")


@dataclass(frozen=True)
class FamilyInfo:
    """What the workbench tells about a model family before any weight is loaded.

    Attributes
    ----------
    name
        Registered name, lower case with underscores; what a card's ``family`` says.
    title
        Name for people.
    summary
        One sentence: what it is.
    citation
        Paper: authors, title, venue, year, arXiv number.
    modalities
        What it reads: ``("audio",)``, ``("audio", "video")``.
    views
        What it can show, out of `VIEWS`.
    published_key
        What in a published checkpoint's keys identifies it, in words.
    """

    name: str
    title: str
    summary: str
    citation: str
    modalities: tuple[str, ...] = ("audio",)
    views: frozenset[str] = field(default_factory=lambda: frozenset({"attribution"}))
    published_key: str = ""

    def __post_init__(self) -> None:
        unknown = self.views - set(VIEWS)
        if unknown:
            raise ValueError(f"{self.name}: unknown views {sorted(unknown)}, known are {VIEWS}")


_FAMILIES: dict[str, type[Network]] = {}
NetworkClass = TypeVar("NetworkClass", bound="type[Network]")


def register_family(info: FamilyInfo) -> Callable[[NetworkClass], NetworkClass]:
    """Class decorator: make a `Network` known as the family `info` describes."""

    def register(cls: NetworkClass) -> NetworkClass:
        cls.info = info
        _FAMILIES[info.name] = cls
        return cls

    return register


def families() -> dict[str, type[Network]]:
    """All registered families by name, in alphabetical order."""
    package = importlib.import_module("models.families")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"models.families.{module.name}")
    return dict(sorted(_FAMILIES.items()))


def family(name: str) -> type[Network]:
    """The network class of one family; imports only that family's module where the names agree.

    Raises
    ------
    SettingsError
        If there is no such family.
    """
    if name not in _FAMILIES and name.isidentifier():
        try:
            importlib.import_module(f"models.families.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"models.families.{name}":
                raise
    if name not in _FAMILIES:
        known = families()
        if name not in known:
            raise SettingsError(f"There is no model family named {name!r}.", f"Known are: {', '.join(known)}.")
    return _FAMILIES[name]
