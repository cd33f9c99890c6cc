"""Lets ``import torchaudio`` work beside the CPU build of torch.

torchaudio's compiled extension is linked against the CUDA build and fails to load beside the CPU one, although nearly all of
torchaudio is plain Python. This puts a finder in front of that one module, which lets torchaudio's own loader try and, when
the library cannot be loaded, puts the package into its own "library absent" state. It costs nothing until somebody imports
torchaudio.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader) -> None:
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.inner.exec_module(module)
        except (OSError, RuntimeError) as error:  # the library cannot be loaded, or belongs to another CUDA version
            reason = str(error)

            def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
                def missing(*args: Any, **kwargs: Any) -> Any:
                    raise RuntimeError(f"torchaudio.{function.__name__} needs the compiled extension ({reason})")

                return missing

            module.__dict__.update(
                _IS_TORCHAUDIO_EXT_AVAILABLE=False,
                _IS_ALIGN_AVAILABLE=False,
                _load_lib=lambda lib: False,
                fail_if_no_align=fail_if_no_align,
                load_error=reason,
            )


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torchaudio._extension":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install() -> None:
    """Put the finder in place, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
