"""Run the contract tests of a part, and compare those that fail with those that should."""

from core.testing import checks_for


def failures(kind, build) -> dict[str, Exception]:
    """Return the error of each check that fails, by its name."""
    errors = {}
    for check in checks_for(kind, build, None):
        try:
            check()
        except Exception as error:  # noqa: BLE001
            errors[str(check)] = error
    return errors


def assert_fails(kind, build, expected: set[str], *, others_too: bool = False) -> None:
    """Assert that the expected checks fail, each with a message, and no others.

    others_too: other checks may fail as well.
    """
    errors = failures(kind, build)
    assert expected <= set(errors)
    assert others_too or set(errors) == expected
    for name in expected:
        assert isinstance(errors[name], AssertionError)
        assert "expected" in str(errors[name])
        assert "received" in str(errors[name])
