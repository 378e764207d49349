"""Stands in for the package of CUDA kernels, which SGLang imports by name: any name can be had, none can be called."""

from collections.abc import Callable
from typing import Any, NoReturn

__version__ = "0.4.10"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_args: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name}: there are no CUDA kernels here")

    missing.__name__ = name
    return missing
