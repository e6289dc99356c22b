"""Contract tests for the author of a part, who runs them with any test runner, pytest for example:

    @pytest.mark.parametrize("check", checks_for("policy_head", MLPHead, MLPHeadConfig()), ids=str)
    def test_contract(check):
        check()

The tests run on the CPU, with the part in evaluation mode. A failure is an AssertionError that
says what was expected and what was received.
"""

from typing import Any, Literal

from core.registry.hookspecs import Build
from core.testing import action_tokens, backbone, policy_head, text_encoder, vision_encoder
from core.testing.common import Check as Check, Setup as Setup

__all__ = ["Check", "Setup", "checks_for"]

Part = Literal["vision_encoder", "text_encoder", "backbone", "action_tokens", "policy_head"]
_CHECKS = {
    "vision_encoder": vision_encoder.checks,
    "text_encoder": text_encoder.checks,
    "backbone": backbone.checks,
    "action_tokens": action_tokens.checks,
    "policy_head": policy_head.checks,
}
_DEFAULT_SETUP = Setup()


def checks_for(kind: Part, build: Build, config: Any, setup: Setup = _DEFAULT_SETUP) -> list[Check]:
    """Return the checks of one part.

    build, config: the part's build function and its configuration, as the plugin registers them.
    setup: what core would tell the part about the policy around it; give a setup of your own if the
        part cannot be built with the default values.

    Raises ValueError if there are no checks for this kind of part.
    """
    if kind not in _CHECKS:
        raise ValueError(f"no checks for a '{kind}'; there are checks for {', '.join(_CHECKS)}")
    return _CHECKS[kind](build, config, setup)
