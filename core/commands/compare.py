"""`joinery compare FOLDER FOLDER ...`: put several runs or evaluations side by side on one page."""

from pathlib import Path

from core.commands.command import CommandParser, command, path


def _parser() -> CommandParser:
    parser = CommandParser(
        "compare",
        "Put several runs, or evaluations, side by side on one HTML page.",
        writes="compare.html, or the page that --output names",
    )
    parser.add_argument(
        "runs",
        type=path,
        nargs="+",
        metavar="FOLDER",
        help="a run's folder, or the results that joinery evaluate --output wrote; two or more",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("compare.html"), help="the page; default: compare.html"
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Write a page that compares runs, and print where it is."""
    parser = _parser()
    arguments = parser.parse(argv)
    if len(arguments.runs) < 2:
        parser.error("name two folders or more; joinery report FOLDER shows a single one")

    from core.report.run_comparison import write_comparison
    from core.report.run_files import evaluation_folder
    from core.system.console import output

    if len({evaluation_folder(run).resolve() for run in arguments.runs}) < len(arguments.runs):
        parser.error("an evaluation is named twice; name different ones")

    output().print(str(write_comparison(arguments.runs, arguments.output)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
