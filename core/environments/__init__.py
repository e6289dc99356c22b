"""Worlds in which a policy acts."""

from core.environments.environment import (
    Environment as Environment,
    Observation as Observation,
    Task as Task,
)
