"""Imports of libraries that use torchvision, also where that was built for another torch."""

import sys
from importlib import import_module
from types import ModuleType

from core.system.optional_imports import import_optional

_declared: list[object] = []  # the declarations below last as long as these objects


def import_library(module: str, extra: str | None = None) -> ModuleType:
    """Import a library that uses torchvision, also where that was built for another torch; else as
    import_optional.
    """
    _mend_torchvision()
    return import_optional(module, extra)


def _mend_torchvision() -> None:
    """Let torchvision be imported beside a torch that its compiled operators were not built for.

    PyPI's torchvision beside a CPU-only torch cannot load them, and its import then stops at the
    first that it names ("operator torchvision::nms does not exist"). Neither timm nor transformers
    needs one. Declaring the two operators that are named, without an implementation, lets the
    import through.
    """
    import torch

    before = set(sys.modules)
    try:
        import_module("torchvision")
        return
    except ImportError:
        return
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "torchvision":  # imported by half
            del sys.modules[name]
    operators = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        operators.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(operators)
