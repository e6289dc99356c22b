"""`joinery compare RUN RUN ...`: put several runs side by side on one page."""

import argparse
from pathlib import Path

from core.commands.command import command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery compare", description="Put several runs side by side on one HTML page."
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a run's folder; two or more"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("compare.html"), help="the page; default: compare.html"
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Write a page that compares runs, and print where it is."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if len(arguments.runs) < 2:
        parser.error("name two runs or more; joinery report RUN shows a single one")
    if len({run.resolve() for run in arguments.runs}) < len(arguments.runs):
        parser.error("a run is named twice; name different ones")

    from core.report.run_comparison import write_comparison

    print(write_comparison(arguments.runs, arguments.output))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
