"""The audio-tagging families give what the published implementations gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import CheckpointError
from models.registry import family
from tests.parity.__main__ import run_case
from tests.parity.audio_tagging import build
from tests.parity.cases import Case, load_case

CASES = sorted((Path(__file__).parent / "data" / "audio_tagging").glob("*.json"))
SLOW = {"train_ast_bce_wa", "train_talnet_bce_warmup"}
NETWORKS = {
    "ast": "ast", "crnn": "crnn", "crnn_newnet": "crnn", "cnn_transformer": "cnn_transformer", "transformer": "transformer",
    "linear": "linear", "fnet": "fnet", "ffnet": "ffnet", "psla": "psla", "mbnet": "mobilenet",
    "resnet_attention": "resnet_attention",
}  # fmt: skip


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in CASES]
)
def test_case(path: Path) -> None:
    rows = run_case(load_case(path))
    assert rows
    failed = [f"{row.output}: {row.error:.2e} > {row.tolerance:.2e} {row.note}" for row in rows if not row.passed]
    assert not failed


def test_a_wrong_output_is_noticed() -> None:
    """The comparison can fail: a reference that is off by a little more than the tolerance does not pass."""
    case = load_case(next(path for path in CASES if path.stem == "crnn_talnet_e64_lin"))
    name = "global_prob"
    changed = dict(case.arrays)
    changed[name] = changed[name] + 3e-4 * np.abs(changed[name]).max()
    rows = run_case(Case(case.path, case.spec, changed))
    assert [row.output for row in rows if not row.passed] == [name]


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in CASES if load_case(p).family in NETWORKS])
def test_settings_are_recognized_from_a_published_state_dict(path: Path) -> None:
    """Shapes alone tell the family and, with what they cannot tell, the settings that the case was made with."""
    case = load_case(path)
    expected = build(case.family, case.config)
    cls = family(NETWORKS[case.family])
    with torch.device("meta"):
        state_dict = {
            name: torch.empty(shape, dtype=getattr(torch, dtype))
            for name, (shape, dtype) in case.spec["state_dict"].items()
        }
    others = [family(name) for name in set(NETWORKS.values()) if family(name) is not cls]
    assert cls.recognizes(state_dict)
    assert [other.info.name for other in others if other.recognizes(state_dict)] == []
    given = expected.config.model_dump()
    untold = {"dropout", "transformer_dropout", "activation", "eps"}
    if case.family == "ast":
        untold |= {"frequency_stride", "time_stride", "target_length", "n_mels"}
    if case.family == "cnn_transformer":
        untold |= {"n_trans_layers", "target_length"}
        with pytest.raises(CheckpointError, match="how often"):
            cls.infer_config(state_dict, {"pooling": "lin"})
    if given.get("pooling") not in (None, "att", "all"):
        untold |= {"pooling"}
    hints = {key: value for key, value in given.items() if key in untold}
    found = cls.infer_config(state_dict, hints).model_dump()
    if case.family == "ast":
        # A size without a name is the same network.
        for values in (found, given):
            values |= dict(zip(("width", "n_heads", "depth"), expected.config.shape, strict=True))
            values["model_size"] = "custom"
    assert found == given
    with torch.device("meta"):
        rebuilt = cls(cls.Config.model_validate(found))
    converted = cls.convert_state_dict(state_dict, rebuilt.config)
    assert {name: value.shape for name, value in converted.items()} == {
        name: value.shape for name, value in rebuilt.state_dict().items()
    }
