"""Environments in which a policy acts: what a plugin that adds an environment needs."""

from core.environments.environment import (
    Environment as Environment,
    Observation as Observation,
    Task as Task,
)
