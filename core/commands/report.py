"""`joinery report RUN`: write RUN/report.html, one page that shows what a run learned and did."""

import argparse
from pathlib import Path

from core.commands.command import command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery report",
        description="Write RUN/report.html, one page that shows what a run learned and did.",
    )
    parser.add_argument("run", type=Path, help="the run's folder")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Write a run's report, and print where it is."""
    arguments = _parser().parse_args(argv)

    from core.report.run_report import write_report

    print(write_report(arguments.run))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
