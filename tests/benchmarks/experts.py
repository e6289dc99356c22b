"""How often each scripted expert of an environment succeeds.

python -m tests.benchmarks.experts tabletop --episodes 100
python -m tests.benchmarks.experts tabletop --chains 100
"""

import argparse
from collections.abc import Sequence

from core.environments.checked import step
from core.environments.environment import Environment
from core.registry.catalogue import load_plugins
from core.rollout.intervals import Rate


def attempt(environment: Environment, task: str) -> int | None:
    """Control steps until the task is done, or None."""
    for number in range(1, environment.tasks[task].max_steps + 1):
        result = step(environment, environment.expert())
        if result.done:
            return number if result.success else None
    return None


def measure_tasks(environment: Environment, tasks: Sequence[str], episodes: int) -> None:
    print("| task | successes | 95 % interval | steps, mean | steps, most |\n|---|---|---|---|---|")
    for task in tasks:
        lengths = []
        for seed in range(episodes):
            environment.reset(task, seed)
            lengths.append(attempt(environment, task))
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment")
    parser.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
        help="a,b,c; default: all",
    )
    parser.add_argument(
        "--episodes", type=int, default=100, help="attempts at each task; default: 100"
    )
    parser.add_argument("--chains", type=int, default=0, help="try chains of tasks instead")
    arguments = parser.parse_args()
    component = load_plugins()["environment"].get(arguments.environment)
    if component is None:
        parser.error(f"no environment is called '{arguments.environment}'")
    environment: Environment = component.build(component.config())
    if arguments.chains:
        measure_chains(environment, arguments.chains)
    else:
        measure_tasks(environment, arguments.tasks or list(environment.tasks), arguments.episodes)
    environment.close()


if __name__ == "__main__":
    main()
