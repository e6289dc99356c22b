"""`joinery export`: write a policy's weights in the layout in which its parts were published.

If OUT ends in .ckpt, it is a training checkpoint in the format of RoboVLMs. Otherwise it is a
folder that Hugging Face's transformers loads, with adapters merged; the folder's file
policy.safetensors holds the weights that transformers does not know. With --adapters, OUT is a
folder of adapters alone, which peft loads on the published model.
"""

from core.commands.command import CommandParser, add_moved, checkpoint_name, command, path
from core.errors import JoineryError


def _parser() -> CommandParser:
    parser = CommandParser(
        "export",
        __doc__,
        writes="the new folder or file OUT",
    )
    parser.add_argument("run", metavar="RUN", type=path, help="folder of a run")
    parser.add_argument(
        "out",
        metavar="OUT",
        type=path,
        help="a new folder for transformers, or a new file.ckpt in the layout of RoboVLMs",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_name,
        default="last",
        metavar="NAME",
        help="which of the run's checkpoints: last, best, or its step; default: last",
    )
    parser.add_argument(
        "--adapters",
        action="store_true",
        help="write the adapters alone, as a folder that peft loads on the published model",
    )
    add_moved(parser)
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Export the weights of a run's policy."""
    arguments = _parser().parse(argv)
    if arguments.out.exists():
        raise JoineryError(f"{arguments.out}: is there already; name another or remove it")
    if arguments.adapters and arguments.out.suffix == ".ckpt":
        raise JoineryError(
            f"{arguments.out}: --adapters writes a folder; name one, or leave it out"
        )

    from core.policy.peft_folder import export_adapters
    from core.policy.publishing import export_checkpoint, export_folder
    from core.recipe.places import parse_moved
    from core.recipe.recipe import load_acting_recipe
    from core.registry.catalogue import load_plugins
    from core.rollout.actor import load_actor
    from core.system.console import output

    moved = parse_moved(arguments.moved)
    actor = load_actor(arguments.run, arguments.checkpoint, exact=True, moved=moved)
    if arguments.adapters:
        recipe = load_acting_recipe(arguments.run, load_plugins(), moved)
        export_adapters(actor.policy, recipe, arguments.out)
    elif arguments.out.suffix == ".ckpt":
        export_checkpoint(actor.policy, arguments.out)
    else:
        export_folder(actor.policy, arguments.out)
    output().print(f"exported to {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
