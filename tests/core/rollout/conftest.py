from tests.toy_policy import (  # noqa: F401 (fixtures)
    load,
    one_thread,
    pristine_run,
    seer,
    trained,
)
