"""How long a policy needs for one robot."""

from core.evaluation.latency import MEASURED, WARM_UP, latency_ms
from tests.toy_policy import ScriptedActor


def test_one_row_is_measured_and_the_first_steps_are_not(scripted_actor: ScriptedActor) -> None:
    assert latency_ms(scripted_actor, "reach the red disc") > 0  # type: ignore[arg-type]
    assert scripted_actor.batch_sizes == [1] * (WARM_UP + MEASURED)
    assert scripted_actor.resets == [(0, {0: 0})]
