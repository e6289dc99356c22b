from .environment import (
    Environment as Environment,
    Observation as Observation,
    Task as Task,
)
