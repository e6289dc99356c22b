"""Joinery's public surface: what the author of a part imports, and the Python API.

Each name is imported on its first use, so `import core` itself loads no large library. The names
are listed once, in `__init__.pyi`.

Some programs also need modules that this list does not contain. To read or write a format:
`core.episodes` and `core.formats`. For parts with published weights: `core.weights`. For
environments: `core.environments`. For tests: `core.testing`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
