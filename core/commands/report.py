"""`joinery report FOLDER`: write one page that shows what a run learned and did."""

import argparse
from pathlib import Path

from core.commands.command import command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery report",
        description="Write one HTML page that shows what a run learned and did.",
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="a run's folder, or the results that joinery evaluate --output wrote",
    )
    parser.add_argument("--output", type=Path, help="the page; default: FOLDER/report.html")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Write a run's report, and print where it is."""
    arguments = _parser().parse_args(argv)

    from core.report.run_report import write_report

    print(write_report(arguments.folder, arguments.output))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
