from .environment import (
    Environment as Environment,
    Observation as Observation,
    StepResult as StepResult,
    Task as Task,
)
