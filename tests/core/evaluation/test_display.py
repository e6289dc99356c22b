from dataclasses import replace
from io import StringIO

from core.evaluation.display import Display, show
from core.rollout.results import STANDARD, ChainResult, EpisodeResult, Evaluation
from core.system.console import PlainConsole


def test_square_brackets_in_names_and_reasons_are_printed():
    """They are markup to the console, and an unpaired one raises an exception."""
    task, tier, reason = "lift[red]", "[/easy]", "raised (KeyError: [/left])"
    failed = EpisodeResult(STANDARD, task, 7, "lift it", False, 3, reason)
    time = {
        "inference_ms": 1.0,
        "policy_steps": 3,
        "rows_busy": 0.968,
        "steps_per_second": 1.0,
        "seconds": 3.0,
    }
    console = PlainConsole(markup=False, file=StringIO(), width=100)
    episodes = [replace(failed, task=name, failure=None) for name in ("push", "turn")]
    tiers = {task: tier, "push": tier}
    show(Evaluation({}, {}, {"lanes": 1}, tiers, [failed, *episodes], [], time), console)
    shown = console.file.getvalue().splitlines()
    assert any(line.split()[:2] == [task, "0/1"] for line in shown)
    assert "97 % of the policy's rows busy" in shown[-2]
    assert any(line.startswith(f" mean of {tier} ") for line in shown)
    assert shown[-1] == f"standard {task}/7, after 3 steps: {reason}; counted as failed"


def test_each_tier_has_an_interval_and_tiers_have_a_mean():
    episodes = [
        EpisodeResult(condition, task, seed, "do it", success and condition == STANDARD, 3)
        for condition in (STANDARD, "blank_images")
        for task, success in (("lift", True), ("reach", True), ("push", False))
        for seed in range(10)
    ]
    time = {"inference_ms": 1.0, "rows_busy": 1.0, "steps_per_second": 1.0, "seconds": 3.0}
    tiers = {"lift": "easy", "reach": "easy", "push": "hard"}
    console = PlainConsole(markup=False, file=StringIO(), width=100)
    show(Evaluation({}, {}, {"lanes": 1}, tiers, episodes, [], time), console)
    shown = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "mean of tiers 50.0% 0.0%" in shown
    assert "mean of easy 20/20 100.0% 83.9 to 100.0% 0.0%" in shown
    assert not any(line.startswith("mean of hard") for line in shown)  # it would repeat its task


def scored_evaluation(task: str) -> Evaluation:
    episodes = [
        EpisodeResult(condition, task, seed, "do it", False, 3, None, seed == 3, best, best / 2, -5)
        for condition, factor in ((STANDARD, 1.0), ("blank_images", 0.1))
        for seed, best in enumerate(factor * value for value in (0.5, 0.7, 0.9, 0.7))
    ]
    time = {"inference_ms": 1.0, "rows_busy": 1.0, "steps_per_second": 1.0, "seconds": 3.0}
    return Evaluation({}, {}, {"lanes": 1}, {}, episodes, [], time)


def test_scores_have_a_table_with_intervals_and_ends_a_line():
    console = PlainConsole(markup=False, file=StringIO(), width=120)
    show(scored_evaluation("push"), console)
    shown = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    headings = [f"{name} score, 95 % interval" for name in ("best", "mean")]
    assert f"task {' '.join(headings)} sum of scores, 95 % interval" in shown
    scores = "0.7 (0.44 to 0.96) 0.35 (0.22 to 0.48) -5"
    assert f"push {scores}" in shown
    assert f"all {scores}" in shown
    assert any(line.startswith("all, blank_images 0.07 (0.044 to 0.096)") for line in shown)
    assert shown[-1] == "the environment ended 1 attempt without success; counted as failed"


def test_the_jerk_of_the_policy_has_a_line():
    scored = scored_evaluation("push")
    jerks = {STANDARD: 0.25, "blank_images": 9.0}
    episodes = [replace(episode, jerk=jerks[episode.condition]) for episode in scored.episodes]
    console = PlainConsole(markup=False, file=StringIO(), width=120)
    show(replace(scored, episodes=episodes), console)
    assert "jerk of the actions: 0.25" in console.file.getvalue().splitlines()


def test_metrics_have_a_table_of_their_own():
    scored = scored_evaluation("push")
    measures = {"best": 3.0, "mean": 2.0, "sum": 8.0}
    episodes = [replace(episode, metrics={"effort": measures}) for episode in scored.episodes]
    console = PlainConsole(markup=False, file=StringIO(), width=120)
    show(replace(scored, episodes=episodes), console)
    shown = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "metric highest, 95 % interval mean, 95 % interval sum, 95 % interval" in shown
    assert "effort 3 2 8" in shown
    assert "effort, blank_images 3 2 8" in shown


def test_in_a_narrow_window_names_are_cut_and_no_number_is():
    console = PlainConsole(markup=False, file=StringIO(), width=46)
    show(scored_evaluation("push_the_block_that_has_a_very_long_name"), console)
    shown = console.file.getvalue()
    words = shown.replace("(", "").split()
    for number in ("0/4", "0.0%", "49.0%", "0.7", "0.35", "0.96)", "-5", "0.07"):
        assert number in words
    assert "push_the_b…_long_name" in shown
    assert max(map(len, shown.splitlines()[:-2])) <= 46


def test_without_a_terminal_there_is_a_line_now_and_then():
    """Also if some results existed before. The standard condition always comes first."""
    blank = [EpisodeResult("blank_images", "lift", seed, "lift it", False, 9) for seed in range(10)]
    standard = [
        EpisodeResult(STANDARD, "lift", seed, "lift it", seed % 2 == 0, 5) for seed in range(20)
    ]
    chains = [ChainResult(seed, ("lift", "push"), ("lift it",), 1, 9) for seed in range(10)]
    console = PlainConsole(markup=False, file=StringIO(), width=100)
    with Display(40, blank, console) as display:
        for result in [*standard, *chains]:
            display.update(result)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 15  # one at every twentieth of 40; 10 were done before
    assert lines[0].startswith("evaluating 12/40 attempts  success 50%  blank_images 0%  ")
    last = "evaluating 40/40 attempts  success 50%  blank_images 0%  chain length 1.00  0 s left"
    assert lines[-1] == last
