"""Evaluation without an environment: predicted and true actions of held-out episodes.

A low error on the demonstrator's path does not show that a policy succeeds on its own path, but it
is all that recordings can tell.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from core.evaluation.files import write_file
from core.evaluation.predictions import HeldOutErrors, write_predictions
from core.recipe.contents import Recipe
from core.rollout.actor import load_actor

FILE = "held_out.json"
# Predicting takes as long as acting, so at most this many held-out episodes are predicted.
MOST_EPISODES = 64


def evaluate_offline(
    run: Path,
    recipe: Recipe,
    output: Path | None = None,
    checkpoint: Literal["last", "best"] | int = "last",
    moved: Mapping[str, str] | None = None,
) -> HeldOutErrors:
    """Predict the actions of held-out episodes, and write predictions.npz and held_out.json.

    Of more than MOST_EPISODES, those of each task in turn are taken.

    output: folder for the files; default: RUN/evaluation.
    checkpoint: which of the run's checkpoints predicts: "last", "best", or the step of one.
    moved: {former place of a file or folder: its place now}, for building the policy.

    Raises ConfigError if the recipe holds nothing out, and DataError for missing or damaged data.
    """
    folder = output or run / "evaluation"
    errors = write_predictions(
        load_actor(run, checkpoint, moved=moved),
        recipe,
        folder / "predictions.npz",
        most=MOST_EPISODES,
    )
    plain = {
        "names": list(errors.names),
        "episodes": errors.episodes,
        "frames": errors.frames,
        "errors": [[None if np.isnan(x) else x for x in row] for row in errors.errors.tolist()],
        "constant": errors.constant.tolist(),
    }
    write_file(folder / FILE, json.dumps(plain, indent=1).encode())
    return errors
