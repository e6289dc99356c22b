"""`joinery export`: write a policy's weights in the layout in which its parts were published.

If OUT ends in .ckpt, it is a training checkpoint in the format of RoboVLMs. Otherwise it is a
folder that Hugging Face's transformers loads, with adapters merged; the folder's file
policy.safetensors holds the weights that transformers does not know.
"""

import argparse
from pathlib import Path

from core.commands.command import add_moved, checkpoint_name, command
from core.errors import JoineryError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joinery export", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument(
        "out",
        type=Path,
        help="a new folder for transformers, or a new file.ckpt in the layout of RoboVLMs",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_name,
        default="last",
        metavar="NAME",
        help="which of the run's checkpoints: last, best, or its step; default: last",
    )
    add_moved(parser)
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Export the weights of a run's policy."""
    arguments = _parser().parse_args(argv)
    if arguments.out.exists():
        raise JoineryError(f"{arguments.out}: is there already; name another or remove it")

    from core.policy.publishing import export_checkpoint, export_folder
    from core.recipe.places import parse_moved
    from core.rollout.actor import load_actor

    moved = parse_moved(arguments.moved)
    policy = load_actor(arguments.run, arguments.checkpoint, exact=True, moved=moved).policy
    export = export_checkpoint if arguments.out.suffix == ".ckpt" else export_folder
    export(policy, arguments.out)
    print(f"exported to {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
