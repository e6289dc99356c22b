"""Contract tests for the author of a plugin, who runs them with any test runner such as pytest:

    @pytest.mark.parametrize("check", checks_for("policy_head", MyHead, MyHeadConfig()), ids=str)
    def test_contract(check):
        check()

The tests run on the CPU, with a part in evaluation mode unless they train it. A failure is an
AssertionError that says what was expected and what was received. The first check builds the
component; if it fails, the others raise unittest.SkipTest, which test runners show as skipped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.formats.contracts import EpisodeSource
from core.registry.hookspecs import Build, ComponentKind
from core.testing import (
    action_tokens,
    backbone,
    dataset,
    environment,
    exporter,
    optimizer,
    policy_head,
    text_encoder,
    vision_encoder,
)
from core.testing.common import Check as Check, Setup as Setup

__all__ = ["Check", "Setup", "checks_for"]

_OF_PARTS = {
    "vision_encoder": vision_encoder.checks,
    "text_encoder": text_encoder.checks,
    "backbone": backbone.checks,
    "action_tokens": action_tokens.checks,
    "policy_head": policy_head.checks,
}
_DEFAULT_SETUP = Setup()


def checks_for(
    kind: ComponentKind,
    build: Build,
    config: Any,
    setup: Setup = _DEFAULT_SETUP,
    *,
    source: Path | None = None,
    read: Callable[[Path], EpisodeSource] | None = None,
) -> list[Check]:
    """Return the checks of one component.

    build, config: the component's build function and its configuration, as the plugin registers
        them.
    setup: what core would tell a part about the policy around it, or an exporter about the episodes
        that it writes; give a setup of your own if the default values do not fit.
    source: of a dataset: a file or a folder that it reads, with two episodes or more. Copies of it
        are damaged, so it should be small.
    read: of an exporter: opens what was written, to compare it with the episodes; a dataset's class
        or a function. Without it, this is not compared.

    Raises ValueError if there are no checks for this kind, or if a dataset lacks its source.
    """
    if kind in _OF_PARTS:
        return _OF_PARTS[kind](build, config, setup)
    if kind == "environment":
        return environment.checks(build, config)
    if kind == "dataset":
        if source is None:
            raise ValueError(
                "the checks of a dataset need `source`, a file or folder that it reads"
            )
        return dataset.checks(build, config, source)
    if kind == "exporter":
        return exporter.checks(build, config, setup, read)
    if kind == "optimizer":
        return optimizer.checks(build, config)
    known = ", ".join([*_OF_PARTS, "environment", "dataset", "exporter", "optimizer"])
    raise ValueError(f"no checks for a '{kind}'; there are checks for {known}")
