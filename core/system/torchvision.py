"""Imports libraries that need torchvision, even if torchvision's compiled operators do not load."""

import sys
from importlib import import_module
from types import ModuleType

from core.system.optional_imports import import_for

# torch forgets a declaration when its Library object is deleted, so the objects are kept here.
_declarations: list[object] = []


def import_library(
    module: str, extra: str | None = None, *, distribution: str | None = None
) -> ModuleType:
    """Import a library that uses torchvision; the arguments are those of `import_optional`.

    The import works even if the installed torchvision was built for another version of torch.
    """
    _make_torchvision_importable()
    caller = sys._getframe(1).f_globals.get("__name__", "")
    return import_for(caller, module, extra, distribution)


def _make_torchvision_importable() -> None:
    """Import torchvision; if its compiled operators do not load, declare two of them.

    If torchvision comes from PyPI and torch is a CPU-only build, torchvision cannot load its
    compiled operators. The import of torchvision then fails at the first operator that it looks up
    ("operator torchvision::nms does not exist"). The import looks up two operators, and neither
    timm nor transformers calls these two. So it is enough to declare both operators without an
    implementation.
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
        # the failed import has left half-initialised modules of torchvision, so remove them
        if name.partition(".")[0] == "torchvision":
            del sys.modules[name]
    operators = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        operators.define(schema)  # type: ignore[no-untyped-call]
    _declarations.append(operators)
