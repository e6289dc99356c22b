"""CALVIN (https://github.com/mees/calvin, MIT licence): an environment and a dataset."""

from core import Register, hookimpl
from plugins.environments.calvin.dataset import CalvinData, CalvinDataConfig
from plugins.environments.calvin.environment import Calvin, CalvinConfig


@hookimpl
def register_environments(register: Register) -> None:
    """Register "calvin"."""
    register("calvin", CalvinConfig, Calvin)


@hookimpl
def register_datasets(register: Register) -> None:
    """Register "calvin"."""
    register("calvin", CalvinDataConfig, CalvinData)
