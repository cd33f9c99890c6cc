"""The tables of ``docs/registry.md``, from the registries: ``python -m workbench.docs_tables > docs/registry.md``."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence

from models.data import READERS
from models.frontends import build_frontend, frontend_kinds
from models.registry import families
from saliency.methods import METHODS

_HEAD = """# What there is

Model families, attribution methods, front ends and data formats, generated from the registries by
`python -m workbench.docs_tables > docs/registry.md`.
"""


def registry_page() -> str:
    """The whole page."""
    parts = [
        _HEAD,
        "## Model families\n\n" + table(("family", "title", "reads", "views", "front end", "source"), _families()),
        "## Attribution methods\n\n"
        "*Passes* are of single inputs with the default settings, for one window. *Signed* methods tell what supports a class "
        "from what\nopposes it. The relevances of *complete* methods add up to the score's difference from silence.\n\n"
        + table(("method", "title", "passes", "needs", "signed", "complete", "source"), _methods()),
        "## Front ends\n\n" + table(("kind", "sample rate", "bands", "own settings", "what it is"), _front_ends()),
        "Common settings: `sample_rate`, `n_mels`, `target_length`, `padding`, `mean`, `std_scale`.\n",
        "## Data formats\n\n" + table(("format", "what it reads", "options"), _readers()),
    ]  # fmt: skip
    return "\n".join(parts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _families() -> Iterable[Sequence[str]]:
    for name, cls in families().items():
        info = cls.info
        config = cls.default_frontend(cls.Config())
        length = "" if config.target_length is None else f" x {config.target_length}"
        size = "samples" if config.n_mels == 0 else f"{config.n_mels} bands{length}"
        heard = f"`{config.kind}`, {config.sample_rate} Hz, {size}"
        yield (f"`{name}`", info.title, ", ".join(info.modalities), ", ".join(sorted(info.views)), heard, info.citation)


def _methods() -> Iterable[Sequence[str]]:
    for name, method in METHODS.items():
        settings = method.Settings()
        yield (
            f"`{name}`", method.title, str(method.passes(settings)), needs(name), _yes(method.signed),
            _yes(method.complete), method.citation,
        )  # fmt: skip


def needs(name: str) -> str:
    """What a method needs of a model, in words: told by a model that has nothing but features and logits."""
    import torch
    from torch import nn

    from models.custom import wrap_module

    plain = wrap_module(nn.Flatten(), {"kind": "kaldi_fbank", "n_mels": 1, "target_length": 1}, ["a"])
    lacking = METHODS[name].missing(plain)
    if lacking:
        return lacking.removeprefix("it has no ").rstrip(".").replace("layer", "a layer", 1)
    features = torch.zeros(1, 1, 1)

    class Opaque(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach().flatten(1)

    opaque = wrap_module(Opaque(), {"kind": "kaldi_fbank", "n_mels": 1, "target_length": 1}, ["a"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            METHODS[name].attribute(opaque, features, 0, METHODS[name].Settings(), 1, lambda share: None)
    except (RuntimeError, AssertionError, ValueError):
        return "gradients"
    return "nothing"


def _front_ends() -> Iterable[Sequence[str]]:
    from models.frontends import FrontEndConfig

    for kind, cls in sorted(frontend_kinds().items()):
        config = build_frontend({"kind": kind}).config
        own = [f"`{key}`" for key in type(config).model_fields if key not in FrontEndConfig.model_fields]
        bands = "none (samples)" if config.n_mels == 0 else str(config.n_mels)
        yield (f"`{kind}`", f"{config.sample_rate} Hz", bands, ", ".join(own) or "none", first_sentence(cls))


def _readers() -> Iterable[Sequence[str]]:
    for name, reader in READERS.items():
        options = [f"`{key}`" for key in list(inspect.signature(reader).parameters)[1:]]
        yield f"`{name}`", first_sentence(reader), ", ".join(options) or "none"


def first_sentence(described: object) -> str:
    """The first line of a docstring, without the mark-up of its parameters."""
    return (inspect.getdoc(described) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    print(registry_page(), end="")
