import json
import re

from core.registry.components import Component, Plugin
from core.registry.faults import find_fault


class Head:
    def act(self):
        return json.loads("{")


class Encoder(Head):
    pass


def raised_by(function):
    try:
        function()
    except (ValueError, SyntaxError) as error:
        return error
    raise AssertionError("nothing was raised")


def component(kind, build, module=__name__):
    return Component(kind, "mine", int, build, Plugin("my_plugin", "joinery-mine", "1.2", module))


def test_the_part_at_work_is_named_with_its_own_line():
    components = [component("vision_encoder", Encoder), component("policy_head", Head)]
    fault = find_fault(raised_by(Head().act), components)
    message = str(fault)
    assert message.startswith(
        "policy_head 'mine' of plugin 'my_plugin' (joinery-mine 1.2): it raised JSONDecodeError: "
    )
    own_line = rf", at {__file__}:\d+; mend the plugin, or use another \(JOINERY_TRACEBACK=1"
    assert re.search(own_line, message)


def test_an_error_of_a_plugins_function_names_the_plugin():
    fault = find_fault(raised_by(Head().act), [component("policy_head", lambda config: Head())])
    assert "policy_head 'mine' of plugin 'my_plugin'" in str(fault)


def test_an_error_without_any_plugin_is_nobodys():
    error = raised_by(lambda: json.loads("{"))
    assert find_fault(error, [component("policy_head", Head, module="elsewhere")]) is None
