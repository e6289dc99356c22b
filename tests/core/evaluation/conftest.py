from collections.abc import Callable
from dataclasses import replace

import pytest

from core.environments.environment import Observation
from core.recipe.contents import Choice, Recipe
from tests.toy_command import TOY
from tests.toy_environment import ToyConfig, ToyEnvironment
from tests.toy_policy import (  # noqa: F401 (fixtures)
    load,
    one_thread,
    pristine_run,
    scripted_actor,
    trained,
)


class Elsewhere(ToyEnvironment):
    """The toy, whose camera and proprioceptive numbers have other names."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        (camera,) = self.info.cameras.values()
        self.info = replace(self.info, cameras={"agentview": camera}, proprio=("east", "north"))

    def observe(self) -> Observation:
        named, self.info = self.info, replace(self.info, cameras={"front": None})
        observation, self.info = super().observe(), named
        return replace(observation, images={"agentview": observation.images["front"]})


@pytest.fixture
def elsewhere() -> Callable[[Recipe], Recipe]:
    """A function that lets a recipe evaluate in an environment with other names."""
    environment = Choice(replace(TOY, build=Elsewhere), ToyConfig())
    return lambda recipe: replace(recipe, environment=environment)
