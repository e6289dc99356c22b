"""Environments in which a policy acts: what a plugin that adds an environment needs."""

import lazy_loader

# Names are looked up on first use: a worker process imports this package before it limits the
# threads of numpy, which must not be imported earlier than that.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
