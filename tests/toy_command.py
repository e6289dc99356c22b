"""`python -m tests.toy_command`: the command `joinery` with the toy environment registered."""

from core.cli import main
from core.registry.catalogue import load_plugins
from core.registry.components import Component, Plugin
from core.sweep import job
from tests.toy_environment import ToyConfig, ToyEnvironment

TOY = Component(
    "environment", "toy", ToyConfig, ToyEnvironment, Plugin("tests.toy_environment", "tests", "1")
)


def install_toy() -> None:
    """Register the toy environment, so that recipes can name it."""
    if load_plugins()["environment"].get("toy") is None:
        load_plugins()["environment"].add(TOY)


if __name__ == "__main__":
    install_toy()
    job.PROGRAM = "tests.toy_command"  # the runs of a sweep know the toy, too
    raise SystemExit(main())
