"""Says which plugin's code an error came from, in one line that names the plugin's own line."""

from collections.abc import Iterable
from traceback import walk_tb
from types import FrameType

from core.errors import PluginError
from core.registry.components import Component, Plugin
from core.system.tracebacks import TRACEBACK_VARIABLE, error_in_one_line, is_of


def fault(what: str, error: BaseException, plugin: Plugin, place: str = "") -> PluginError:
    """Return a PluginError about an error that a plugin's code raised.

    what: the beginning of the message: what was being done, and whose code it was.
    place: where that code is, as `place_of` gives it, if no line of the plugin was reached.
    """
    advice = "mend the plugin, or use another"
    if isinstance(error, ImportError) and error.name:
        advice = f"install the library that offers '{error.name}', or use another plugin"
    line = error_in_one_line(error, plugin.package, place)
    return PluginError(f"{what} {line}; {advice} ({TRACEBACK_VARIABLE}=1 shows the traceback)")


def find_fault(error: BaseException, components: Iterable[Component]) -> PluginError | None:
    """Return a PluginError about the component whose code raised an error.

    That is the component whose plugin the innermost line of any plugin belongs to: it may have
    called a library that raised. Returns None if no plugin's code took part.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    frames.reverse()  # innermost first
    candidates = [component for component in components if component.plugin.package]
    for frame in frames:
        own = [c for c in candidates if is_of(frame, c.plugin.package)]
        if own:
            component = next((c for f in frames for c in own if _runs_in(f, c)), own[0])
            return fault(f"{component}: it raised", error, component.plugin)
    return None


def _runs_in(frame: FrameType, component: Component) -> bool:
    """Whether a frame runs a method of what a component's class builds."""
    return isinstance(component.build, type) and isinstance(
        frame.f_locals.get("self"), component.build
    )
