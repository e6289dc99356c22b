"""Run the contract tests of a part, and compare those that fail with those that should."""

from unittest import SkipTest

from core.testing import checks_for

SLOW = {"runs_in_a_process_of_its_own"}


def failures(kind, build, config=None, *, slow: bool = False, **arguments) -> dict[str, Exception]:
    """Return the error of each check that fails, by its name.

    slow: whether checks that start a process run, too.
    arguments: further arguments of `checks_for`.
    """
    errors = {}
    for check in checks_for(kind, build, config, **arguments):
        if str(check) in SLOW and not slow:
            continue
        try:
            check()
        except SkipTest:  # the part cannot be built
            continue
        except Exception as error:  # noqa: BLE001
            errors[str(check)] = error
    return errors


def assert_fails(kind, build, expected: set[str], *, others_too: bool = False, **arguments) -> None:
    """Assert that the expected checks fail, each with a message, and no others.

    others_too: other checks may fail as well.
    """
    errors = failures(kind, build, **arguments)
    assert expected <= set(errors)
    assert others_too or set(errors) == expected
    for name in expected:
        assert isinstance(errors[name], AssertionError)
        assert "expected" in str(errors[name])
        assert "received" in str(errors[name])
