"""What the results of an evaluation depend on: policy, environment, protocol, versions, device."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from core.environments.workers import Description
from core.policy.quantization import parameter_count
from core.recipe.contents import Recipe
from core.recipe.packages import read_origins, third_party_versions
from core.rollout.actor import Actor


def identity_of(
    run: Path, actor: Actor, recipe: Recipe, environment: Description, protocol: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return everything that results depend on, as plain data that JSON stores without change.

    protocol: what `describe_protocol` returns.
    """
    config = recipe.as_dict()["environment"]
    steps = {task: environment.tasks[task].max_steps for task in protocol["tasks"]}
    identity = {
        "policy": _policy(run, actor, recipe),
        "environment": {
            "name": config.pop("name"),
            "config": config,
            "versions": _versions(recipe, environment),
        },
        "protocol": {
            **protocol,
            "max_steps": steps,
            # the device and the number of threads decide how sums are rounded
            "device": _name(actor.device),
            "threads": torch.get_num_threads(),
            "acts_on": _frames_acted_on(actor),
        },
    }
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(identity))
    return plain


def _policy(run: Path, actor: Actor, recipe: Recipe) -> dict[str, Any]:
    folder = actor.checkpoint.folder
    policy: dict[str, Any] = {
        "run": run.absolute().name,
        "checkpoint": folder.name,
        "step": actor.checkpoint.step,
        "recipe_sha256": _sha256(run / "recipe.toml"),
        "weights_sha256": _sha256(folder / "model.safetensors"),
        "parameters": sum(parameter_count(parameter) for parameter in actor.policy.parameters()),
    }
    if packages := third_party_versions(recipe, environment=False):
        policy["packages"] = packages
    if components := read_origins(run):
        policy["components"] = {section: str(origin) for section, origin in components.items()}
    # checkpoints of earlier versions do not say it
    if isinstance(origins := actor.checkpoint.state.get("origins"), dict):
        policy["trained_on"] = {str(store): str(origin) for store, origin in origins.items()}
    return policy


def _versions(recipe: Recipe, environment: Description) -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("joinery", "torch", "numpy")}
    versions["python"] = platform.python_version()
    return {
        **versions,
        **third_party_versions(recipe, environment=True),
        **environment.versions,
    }


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _frames_acted_on(actor: Actor) -> str:
    """Say which frames the policy acts on; this is part of results.json."""
    frames = actor.policy.action_tokens.context
    match actor.policy.keeps:
        case "layers":
            return f"the last {frames // 2 + 1} to {frames} frames, on kept layers"
        case "carry":
            return "all frames, carried on by the backbone"
    return f"the last {frames} frames" if frames > 1 else "the frame, and what the head remembers"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
