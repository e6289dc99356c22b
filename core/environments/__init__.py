"""Environments in which a policy acts: the classes for plugins that add an environment."""

import lazy_loader

# Names are looked up on first use, so that this package does not import numpy: a worker process
# imports this package, then limits the threads of numpy, and only then imports numpy.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
