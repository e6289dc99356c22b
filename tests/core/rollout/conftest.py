from tests.toy_policy import (  # noqa: F401 (fixtures)
    load,
    one_thread,
    pristine_run,
    scripted_actor,
    trained,
)
