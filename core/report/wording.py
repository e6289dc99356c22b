"""How pages write numbers, durations and settings, so that all of them write the same thing alike.

Nothing here knows what a number means; `run_conditions` knows the settings of an evaluation.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def percent(share: float) -> str:
    """Format a share as a percentage: 0.875 -> 87.5%, 0.9 -> 90%."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def interval(bounds: tuple[float, float]) -> str:
    """Format the bounds of a share: (0.9787, 1.0) -> 97.9 to 100%."""
    low, high = map(percent, bounds)
    return f"{low.removesuffix('%')} to {high}"


def significant(value: float, digits: int = 3) -> str:
    """Format a measurement: 24.513 -> 24.5, 0.00004 -> 4e-05, 12345.6 -> 12,346.

    No digit before the point is rounded away, and no small value becomes zero.
    """
    written = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in written else written


def duration(seconds: float) -> str:
    """Format a duration: 20.1 -> 20.1 s, 90 -> 1 min 30 s, 7250 -> 2 h 0 min."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.3g} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600:,} h {total % 3600 // 60} min"


def label(key: str) -> str:
    """Turn the name of a setting into words: control_episodes -> control episodes."""
    return key.replace("_", " ").strip() or key


def text(value: Any) -> str:
    """Write plain data as a reader would: a list as a, b, c; a flag as yes or no."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str() | int():
            return str(value)
        case float():
            return significant(value, 4)
        case Mapping():
            return ", ".join(f"{label(str(key))} {text(item)}" for key, item in value.items())
        case Sequence():
            return ", ".join(map(text, value)) or "none"
        case _:
            return json.dumps(value, default=str)


def settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested settings into {name in words: value in words}.

    The name of a setting within others follows theirs: {"camera": {"image_size": 64}} becomes
    {"camera, image size": "64"}.
    """
    written: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{label(key)}"
        if isinstance(value, Mapping):
            written |= settings(value, f"{name}, ")
        else:
            written[name] = text(value)
    return written
