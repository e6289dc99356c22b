"""The commands of `joinery`, one file each.

`joinery verify` begins in verify.py, `joinery import` in import_.py, and so on; only `joinery run`
is elsewhere, in core/run.py. core/cli.py lists all commands. Each command's file has a `main` that
parses the arguments before it imports large libraries, so that `--help` and mistyped arguments are
answered at once. command.py and components.py hold what several commands share.
"""
