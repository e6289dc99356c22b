"""Units of actions and proprioception, found by the names of the numbers.

A unit that is not known is "", and fits every unit.
"""

from collections.abc import Mapping, Sequence

from core.episodes.episode import StoreInfo


def units_by_name(names: Sequence[str], units: Sequence[str]) -> dict[str, str]:
    """Return {name: unit} of the numbers whose unit is known."""
    return {name: unit for name, unit in zip(names, units, strict=False) if unit}


def units_in_order(names: Sequence[str], units: Mapping[str, str]) -> tuple[str, ...]:
    """Return the unit of each number, given {name: unit}; () if none of them is known."""
    ordered = tuple(units.get(name, "") for name in names)
    return ordered if any(ordered) else ()


def known_units(info: StoreInfo) -> dict[str, str]:
    """Return {"action 'x'" or "proprio 'x'": unit} of all numbers whose unit is known."""
    action = units_by_name(info.action.names, info.action.units)
    proprio = units_by_name(info.proprio, info.proprio_units)
    return {
        **{f"action '{name}'": unit for name, unit in action.items()},
        **{f"proprio '{name}'": unit for name, unit in proprio.items()},
    }


def different_units(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Return the names whose units, {name: unit}, are known on both sides and differ."""
    return [name for name, unit in first.items() if second.get(name, unit) != unit]
