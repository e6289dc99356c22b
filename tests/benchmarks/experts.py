"""How often each scripted expert of an environment succeeds.

python -m tests.benchmarks.experts tabletop --episodes 100
python -m tests.benchmarks.experts tabletop --chains 100
python -m tests.benchmarks.experts recipes/pusht.toml --noise 0.1
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.commands.components import find_component
from core.demonstrations.expert import disturb, disturbances
from core.environments.checked import expert_action, reset, step
from core.environments.environment import Environment
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.rollout.intervals import Rate


def attempt(environment: Environment, task: str, seed: int = 0, noise: float = 0) -> int | None:
    """Control steps until the task is done, or None.

    seed, noise: of the disturbances, which are those of demonstrations.
    """
    convention, max_steps = environment.info.action, environment.tasks[task].max_steps
    drift = disturbances(convention, task, seed, noise, max_steps)
    for number, disturbance in enumerate(drift, start=1):
        action = disturb(expert_action(environment), disturbance, convention)
        result = step(environment, action)
        if result.done:
            return number if result.success else None
    return None


def measure_tasks(
    environment: Environment, tasks: Sequence[str], episodes: int, noise: float
) -> None:
    print("| task | successes | 95 % interval | steps, mean | steps, most |\n|---|---|---|---|---|")
    for task in tasks:
        lengths = []
        for seed in range(episodes):
            reset(environment, task, seed)
            lengths.append(attempt(environment, task, seed, noise))
        successes = [steps for steps in lengths if steps is not None]
        low, high = Rate(len(successes), episodes).interval
        mean, most = sum(successes) / max(1, len(successes)), max(successes, default=0)
        cells = [task, f"{len(successes)} of {episodes}", f"{low:.1%} to {high:.1%}"]
        print(f"| {' | '.join(cells)} | {mean:.0f} | {most} |", flush=True)


def measure_chains(environment: Environment, chains: int) -> None:
    successes = 0
    for seed in range(chains):
        for task in environment.begin_chain(seed):
            environment.proceed(task)
            if attempt(environment, task) is None:
                break
            successes += 1
    print(f"average chain length over {chains} chains: {successes / chains:.2f}")


def build(name: str, settings: Sequence[str]) -> Environment:
    """Return the environment of a name, or of a recipe."""
    if not name.endswith(".toml"):
        component, config = find_component("environment", name, settings)
        return component.build(config)
    chosen = load_recipe(Path(name), settings, load_plugins()).environment
    assert chosen is not None
    return chosen.component.build(chosen.config)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", help="its name, or a recipe with its settings: NAME.toml")
    parser.add_argument("settings", nargs="*", help="key=value; of a recipe: section.key=value")
    parser.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
        help="a,b,c; default: all",
    )
    parser.add_argument(
        "--episodes", type=int, default=100, help="attempts at each task; default: 100"
    )
    parser.add_argument("--chains", type=int, default=0, help="try chains of tasks instead")
    parser.add_argument("--noise", type=float, default=0, help="of the disturbances; default: none")
    arguments = parser.parse_intermixed_args()
    environment = build(arguments.environment, arguments.settings)
    if arguments.chains:
        measure_chains(environment, arguments.chains)
    else:
        tasks = arguments.tasks or list(environment.tasks)
        measure_tasks(environment, tasks, arguments.episodes, arguments.noise)
    environment.close()


if __name__ == "__main__":
    main()
