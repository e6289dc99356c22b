"""A run's folder as training and evaluation leave it; the arguments determine every byte."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from core.rollout.results import ChainResult, EpisodeResult, Evaluation

COLOURS = {"red": (205, 60, 50), "green": (60, 160, 90), "blue": (60, 90, 200)}
TASKS = (
    "lift_red",
    "lift_green",
    "lift_blue",
    "push_red_left",
    "push_green_left",
    "push_blue_left",
    "push_red_right",
    "push_green_right",
    "push_blue_right",
    "press_button",
    "open_drawer",
    "close_drawer",
    "move_slider_left",
    "move_slider_right",
    "turn_on_lamp",
    "turn_off_lamp",
    "stack_blocks",
    "place_red_in_drawer",
    "rotate_red_left",
    "rotate_blue_right",
)
PARTS = (
    "vision_encoder",
    "text_encoder",
    "projections",
    "backbone",
    "action_tokens",
    "policy_head",
)
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
RECIPE = """[train]
steps = {steps}
learning_rate = {learning_rate}
schedule = "cosine"
seed = 7

[data]
path = "data/tabletop.zarr"
window = 8

[vision_encoder]
name = "timm_vit"
train = {train}

[policy_head]
name = "lstm"
mlp = [
    256,
    128,
]
"""


def make_run(
    folder: Path,
    *,
    tasks: Sequence[str] = TASKS[:2],
    skill: float = 0.8,
    steps: int = 300,
    episodes: int = 10,
    length: int = 12,
    learning_rate: float = 0.001,
    chains: int = 8,
) -> Path:
    """Write everything that a report reads."""
    folder.mkdir(parents=True)
    recipe = RECIPE.format(steps=steps, learning_rate=learning_rate, train=str(skill > 0.5).lower())
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    write_metrics(folder / "metrics.jsonl", tasks, steps)
    (folder / "evaluation" / "rollouts").mkdir(parents=True)
    evaluation = make_evaluation(folder.name, tasks, skill, episodes, chains)
    checksum = sha256(recipe.encode()).hexdigest()
    evaluation = replace(evaluation, policy={**evaluation.policy, "recipe_sha256": checksum})
    write_evaluation(folder, evaluation)
    for number, task in enumerate(tasks):
        write_rollout(folder, task, number, length, success=True)
        if evaluation.by_task()[task].rate < 1:
            write_rollout(folder, task, number, 2 * length, success=False)
    write_predictions(folder / "evaluation" / "predictions.npz", tasks[:6], length)
    return folder


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    text = json.dumps(evaluation.to_json())
    (folder / "evaluation" / "results.json").write_text(text, encoding="utf-8")


def make_evaluation(
    run: str,
    tasks: Sequence[str] = TASKS[:2],
    skill: float = 0.9,
    episodes: int = 10,
    chains: int = 8,
) -> Evaluation:
    random = np.random.default_rng(len(tasks) + round(100 * skill))
    results = []
    for condition, factor in {"standard": 1.0, "blank_images": 0.04, "swapped_words": 0.08}.items():
        for number, task in enumerate(tasks):
            chance = min(1.0, factor * skill * (1.1 - 0.25 * (number % 4 == 1)))
            results += [
                EpisodeResult(
                    condition,
                    task,
                    1_000_000 + i,
                    instruction(task),
                    bool(random.random() < chance),
                    40 + i,
                )
                for i in range(episodes)
            ]
    done = [min(5, int(random.geometric(1.05 - skill) - 1)) for _ in range(chains)]
    return Evaluation(
        policy={
            "run": run,
            "checkpoint": "step_0000300",
            "step": 300,
            "recipe_sha256": "6f" * 32,
            "parameters": 2_733_598,
        },
        environment={
            "name": "tabletop",
            "config": {"image_size": 64, "cameras": ["static", "wrist"]},
            "versions": {
                "joinery": "0.1.0",
                "mujoco": "3.3.0",
                "torch": "2.13.0",
                "python": "3.11.7",
            },
        },
        protocol={
            "episodes": episodes,
            "first_seed": 1_000_000,
            "execute": 2,
            "lanes": 8,
            "success": "at any step",
        },
        tiers={
            task: "colours" if task.split("_")[0] in ("lift", "push") else "fixtures"
            for task in tasks
        },
        episodes=results,
        chains=[
            ChainResult(i, tuple(TASKS[:5]), tuple(TASKS[:5]), n, 60 * (n + 1))
            for i, n in enumerate(done)
        ],
        time={"inference_ms": 6.25, "environment_ms": 4.5},
    )


def instruction(task: str) -> str:
    return f"please {task.replace('_', ' ')} on the table"


def write_metrics(path: Path, tasks: Sequence[str], steps: int) -> None:
    random = np.random.default_rng(steps)
    lines: list[Mapping[str, float]] = []
    for step in range(1, steps + 1):
        decay = math.exp(-3 * step / steps)
        if step in (1, steps) or step % max(1, steps // 10) == 0:
            lines += [_joint(step, number, part, decay) for number, part in enumerate(PARTS)]
        pose, gripper = (
            float(scale * (0.08 + decay) * random.lognormal(0, 0.25)) for scale in (0.5, 0.2)
        )
        lines.append(
            {
                "step": step,
                "loss": pose + gripper,
                "pose": pose,
                "gripper": gripper,
                "gradient_norm": 0.5 * decay,
            }
        )
        if step % max(1, steps // 8) == 0:
            errors = {
                f"validation/error/{task}": 0.2 * decay + 0.01 * (i % 5 + 2)
                for i, task in enumerate(tasks)
            }
            mean = sum(errors.values()) / len(errors)
            lines.append(
                {"step": step, "validation/error": mean, "validation/constant": 0.194, **errors}
            )
            lines.append({"step": step, "time/samples_per_second": 180.5})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _joint(step: int, number: int, part: str, decay: float) -> dict[str, float]:
    size = 128.0 * 8 ** (number + 1)
    measured = {
        "learning_rate": 1e-3 * decay,
        "gradient_norm": 0.6 * decay / (number + 1),
        "update": 6e-4 * decay,
    }
    losses = {f"gradient_of/{term}": 0.4 * decay / (number + 1) for term in ("pose", "gripper")}
    row = {"parameters": size, "trainable": size, **measured, **losses}
    return {"step": step, **{f"joint/{part}/{key}": value for key, value in row.items()}}


def write_rollout(folder: Path, task: str, seed: int, length: int, *, success: bool) -> Path:
    time = np.linspace(0, 1, length)
    path = folder / "evaluation" / "rollouts" / f"{task}-{'success' if success else 'failure'}.npz"
    np.savez_compressed(
        path,
        **{
            "camera/static": _scene(time, seed, 64, success),
            "camera/wrist": _scene(time, seed + 7, 48, success),
            "gripper": np.where((time > 0.4) & (time < 0.85), 0.1, 1.0),
            "task": np.array(task),
            "instruction": np.array(instruction(task)),
            "seed": np.array(1_000_000 + seed),
            "success": np.array(success),
        },
    )
    return path


def _scene(time: np.ndarray, seed: int, size: int, success: bool) -> np.ndarray:
    """A shaded table, three blocks and a gripper that moves: (n size size 3) uint8."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size
    table = 150 + 50 * rows[..., None] * np.array([1.0, 0.9, 0.75])
    frames = np.repeat(table[None], len(time), axis=0)
    places = random.uniform(0.2, 0.8, (3, 2))
    for (y, x), colour in zip(places, COLOURS.values(), strict=True):
        inside = (abs(rows - y) < 0.07) & (abs(columns - x) < 0.07)
        frames[:, inside] = np.array(colour) * (0.8 + 0.3 * rows[inside])[:, None]
    goal = places[0] if success else 1 - places[0]
    for frame, t in zip(frames, time, strict=True):
        y, x = np.array([0.05, 0.5]) * (1 - t) + goal * t
        frame[(abs(rows - y) < 0.05) & (abs(abs(columns - x) - 0.06) < 0.025)] = (70, 70, 80)
    return frames.clip(0, 255).astype(np.uint8)


def write_predictions(path: Path, tasks: Sequence[str], length: int, horizon: int = 5) -> None:
    random = np.random.default_rng(length)
    arrays: dict[str, np.ndarray] = {"names": np.array(NAMES)}
    for number, task in enumerate(tasks):
        time = np.arange(2 * length + horizon)[:, None]
        true = np.sin(time / 9 * (1 + np.arange(7) / 3) + number)
        true[:, 6] = np.where(time[:, 0] < length, 1, -1)
        chunks = np.stack([true[i : i + horizon] for i in range(2 * length)])
        drift = (
            random.normal(0, 0.08, (2 * length, 1, 7))
            * np.arange(1, horizon + 1)[None, :, None] ** 0.7
        )
        arrays |= {f"{number}/true": true[: 2 * length], f"{number}/predicted": chunks + drift}
        arrays |= {
            f"{number}/task": np.array(task),
            f"{number}/instruction": np.array(instruction(task)),
        }
    np.savez_compressed(path, **arrays)
