"""Makes the dataset on which recipes/own_arm.toml was measured.

    python -m tests.benchmarks.own_arm OUT

A person steers an arm of six joints, which puts one of three cubes into a tray. Nothing is
simulated but geometry: the arm reaches what it is steered to, two frames later.
"""

import argparse
from pathlib import Path

from tests.benchmarks.own_arm.recording import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--episodes", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists; name another folder")
    record(arguments.out, arguments.episodes, arguments.seed)


if __name__ == "__main__":
    main()
