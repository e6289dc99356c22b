"""`python -m core.run`, where the first process, which alone has loggers, cannot start them."""

import sys

from core import ConfigError, run
from core.training.monitors import Loggers


def start(*_):
    raise ConfigError("train.loggers: 'mine' cannot be started")


if __name__ == "__main__":
    Loggers.start = start
    sys.exit(run.main(sys.argv[1:]))
