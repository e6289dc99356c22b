"""`joinery report FOLDER`: write one page that shows what a run learned and did."""

from pathlib import Path

from core.commands.command import CommandParser, command, path


def _parser() -> CommandParser:
    parser = CommandParser(
        "report",
        "Write one HTML page that shows what a run learned and did.",
        writes="FOLDER/report.html, or the page that --output names",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=path,
        help="a run's folder, or the results that joinery evaluate --output wrote",
    )
    parser.add_argument("--output", type=Path, help="the page; default: FOLDER/report.html")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Write a run's report, and print where it is."""
    arguments = _parser().parse(argv)

    from core.report.run_report import write_report
    from core.system.console import output

    output().print(str(write_report(arguments.folder, arguments.output)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
