"""Names of classes and models that people type in: hostile text until it is checked."""

from __future__ import annotations

import re
import unicodedata

from models.errors import SettingsError
from models.teaching.contract import LONGEST_LABEL

_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def label_problem(label: str) -> str:
    """Why a text cannot be the name of a class; empty if it can."""
    if not label.strip():
        return "it is empty"
    if len(label) > LONGEST_LABEL:
        return f"it has {len(label)} characters, and the most is {LONGEST_LABEL}"
    if label != label.strip():
        return "it begins or ends with a blank"
    # Cc, Cf, Cs, Co, Cn and line separators: invisible, or able to turn the text around them.
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in label):
        return "it holds invisible characters"
    if any(character in "<>" for character in label):
        return "it holds markup (< or >)"
    if unicodedata.normalize("NFC", label) != label:
        return "its accents are written in an unusual way (not NFC)"
    return ""


def shown(text: str, longest: int = 40) -> str:
    """A text in an error message: quoted, shortened, without invisible characters or angle brackets."""
    plain = "".join(c if c.isprintable() and c not in "<>" else "?" for c in text)
    return f'"{plain if len(plain) <= longest else plain[: longest - 1] + "…"}"'


def check_name(name: str) -> None:
    """Refuse names of models that could not be a folder's.

    Raises
    ------
    SettingsError
        If it is anything but lower-case letters, digits, dots, dashes and underscores.
    """
    if not _SAFE_NAME.fullmatch(name) or name.endswith("."):
        raise SettingsError(
            f"The new model cannot be named {shown(name)}.",
            "Use up to 64 small letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        )
