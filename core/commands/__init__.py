"""The commands of `joinery`, one file each.

`joinery verify` begins in verify.py, `joinery import` in import_.py, and so on; core/cli.py lists
them, and core/run.py is `joinery run`. Each file has a `main` that parses the arguments before it
imports libraries, so that `--help` and mistyped arguments are answered at once. `main`
then calls a function of another package, which does the work.
"""
