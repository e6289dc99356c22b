"""Joinery's public surface: what the author of a part imports, and the Python API.

Names are looked up on first use, so that `import core` waits for no library; they are listed once,
in `__init__.pyi`. For readers and writers of formats, parts with published weights, and
environments, see `core.episodes`, `core.formats`, `core.weights` and `core.environments`; for
tests, see `core.testing`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
