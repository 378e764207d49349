"""Lets SGLang run beside a torch for the CPU, with no edit to any installed file.

This folder goes first on PYTHONPATH, so that every Python process of the server loads this module, the spawned
scheduler and detokenizer included. Two imports are prepared when they first happen:

- torchvision, which the index builds for CUDA: beside a torch for the CPU its C++ library does not load, and its import
  then fails for want of two operator schemas. They are declared here.
- triton, which SGLang imports everywhere and never calls on the CPU: SGLang carries a stand-in for machines without it
  (`sglang/_platform_stubs.py`, meant for Apple's), and the triton half of that is run here.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_kept: list[Any] = []  # operator libraries vanish when they are collected


class _BeforeImport(MetaPathFinder):
    """Calls a function once, just before a module is first imported."""

    def __init__(self, module: str, prepare: Callable[[], None]) -> None:
        self.module, self.prepare = module, prepare

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self.module:
            sys.meta_path.remove(self)
            self.prepare()
        return None


def _declare_torchvision_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


def _stand_in_for_triton() -> None:
    import torch  # noqa: F401  (first, so that torch itself decides that there is no triton)

    spec = importlib.util.find_spec("sglang")
    assert spec is not None
    assert spec.origin is not None
    stubs = Path(spec.origin).with_name("_platform_stubs.py")
    source = stubs.read_text()
    half = source[source.index('    if "triton" not in sys.modules') : source.index("\n    mps = torch.mps")]

    module = ModuleType("_sglang_platform_stubs")
    module.__file__ = str(stubs)
    sys.modules[module.__name__] = module
    exec(compile(source, stubs, "exec"), module.__dict__)
    exec(compile(f"def install_triton_stubs():\n{half}\n", stubs, "exec"), module.__dict__)
    module.install_triton_stubs()


sys.meta_path[:0] = [
    _BeforeImport("torchvision", _declare_torchvision_operators),
    _BeforeImport("sglang", _stand_in_for_triton),
]
