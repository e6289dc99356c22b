"""The moving image at the head of the README: a trained policy tries some tasks, one after another.

python -m tests.benchmarks.record_policy runs/kosmos_lstm docs/policy.webp

The run must come from a recipe with the environment `tabletop`. Beside the environment that the
policy observes, a second one carries out the same actions and draws larger images.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.environments.checked import step
from core.environments.environment import EVALUATION_SEEDS, Environment, Task
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.rollout.actor import Actor, load_actor

TASKS = (
    "lift_red",
    "push_green_left",
    "lift_blue",
    "push_red_right",
    "lift_green",
    "push_blue_left",
)
SIZE, SIDE, MARGIN = 400, 200, 12  # pixels: the table, the wrist camera beside it, around that
SMOOTHING = 2  # each pixel is the mean of this many rays squared
FIRST, LAST = 12, 16  # frames for which the beginning and the end of an attempt stand still
AFTER = 8  # steps that the policy goes on after its success
MILLISECONDS = 50  # a frame is shown as long as a control step takes
INK, GREY, PAPER, GREEN = (32, 36, 42), (120, 126, 134), (250, 250, 248), (34, 139, 84)


def attempt(
    actor: Actor, environments: Sequence[Environment], task: Task, seed: int
) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """Let the policy try a task; yield the large images of every step, and whether it is done.

    environments: the one that the policy observes, and the one whose images are larger.
    """
    observed, drawn = environments
    instruction = task.instruction("evaluation", seed)
    for environment in environments:
        environment.reset(task.name, seed)
    state = actor.reset(actor.start(rows=1), {0: seed})
    left, done = task.max_steps, False
    yield dict(drawn.observe().images), done
    while left > 0:
        chunks, state = actor.step([observed.observe()], [instruction], state)
        action = chunks[0, 0]
        success = step(observed, action).success
        drawn.step(action)
        left = AFTER if success and not done else left - 1
        done = done or success
        yield dict(drawn.observe().images), done


def compose(images: dict[str, np.ndarray], instruction: str, done: bool) -> Image.Image:
    """Draw one frame: the table, and beside it the wrist camera above the instruction."""
    frame = Image.new("RGB", (SIZE + SIDE + 2 * MARGIN, SIZE), PAPER)
    left, below = SIZE + MARGIN, MARGIN + SIDE
    frame.paste(Image.fromarray(images["static"]).resize((SIZE, SIZE), Image.Resampling.BOX))
    wrist = Image.fromarray(images["wrist"]).resize((SIDE, SIDE), Image.Resampling.BOX)
    frame.paste(wrist, (left, MARGIN))
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    plain = ImageFont.truetype(folder / "DejaVuSans.ttf", 13)
    bold = ImageFont.truetype(folder / "DejaVuSans-Bold.ttf", 19)
    draw = ImageDraw.Draw(frame)
    draw.text((left, below + 8), "wrist camera", GREY, plain)
    draw.text((left, below + 52), "instruction", GREY, plain)
    draw.text((left, below + 72), fill(instruction, 18), INK, bold, spacing=6)
    if done:
        draw.text((left, SIZE - MARGIN - 22), "✓ done", GREEN, bold)
    return frame


def record(run: Path, tasks: Sequence[str], seed: int) -> Iterator[Image.Image]:
    """Yield the frames of one attempt at each task."""
    choice = load_recipe(run / "recipe.toml", [], load_plugins()).environment
    assert choice is not None, "the run's recipe names no environment"
    build, config = choice.component.build, choice.config
    environments = [build(config), build(replace(config, image_size=SIZE * SMOOTHING))]
    actor = load_actor(run)
    for name in tasks:
        task = environments[0].tasks[name]
        instruction = task.instruction("evaluation", seed)
        frames = list(attempt(actor, environments, task, seed))
        print(f"{name}: {instruction}: {'done' if frames[-1][1] else 'not done'}")
        for images, done in [*frames[:1] * FIRST, *frames, *frames[-1:] * LAST]:
            yield compose(images, instruction, done)
    for environment in environments:
        environment.close()


def main() -> None:
    """Write the moving image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("out", type=Path, help="an animated WebP, docs/policy.webp for example")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, separated by commas")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEEDS, help="seed of the scenes")
    arguments = parser.parse_args()
    first, *others = record(arguments.run, arguments.tasks.split(","), arguments.seed)
    first.save(
        arguments.out,
        save_all=True,
        append_images=others,
        duration=MILLISECONDS,
        loop=0,
        quality=75,
        method=6,
        minimize_size=True,
    )
    print(f"{arguments.out}: {len(others) + 1} frames, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
