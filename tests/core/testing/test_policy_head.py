"""Contract tests of policy heads: sound ones pass, each broken one fails its checks."""

import pytest
import torch
from torch import nn

from core import PolicyHead, masked_mean_per_sample, masked_mse
from tests.core.testing.failing import assert_fails, failures


class Head(PolicyHead):
    """Projects the sum of the readouts so far."""

    def __init__(self, config, *, context, action):
        super().__init__()
        self.shape = (action.horizon, action.dim)
        self.width = context.width
        self.project = nn.Linear(context.width, action.horizon * action.dim)

    def history(self, readout):
        return readout.mean(2).cumsum(1)

    def actions(self, total):
        return self.project(total).sigmoid().unflatten(-1, self.shape)

    def forward(self, context, generator):
        return self.actions(self.history(context.readout))

    def loss(self, context, batch, generator):
        return {"action": masked_mse(self(context, generator), batch.actions, batch.action_mask)}

    def initial_state(self, rows):
        return {"total": self.project.weight.new_zeros(rows, self.width)}

    def act(self, context, state, generator):
        total = state["total"] + context.readout.mean(2)[:, 0]
        return self.actions(total), {"total": total}


class NoisyHead(Head):
    """Adds noise of its own to every frame's actions."""

    def forward(self, context, generator):
        total = self.history(context.readout)
        return self.actions(total + generator.normal(*total.shape).to(total.dtype))

    def act(self, context, state, generator):
        total = state["total"] + context.readout.mean(2)[:, 0]
        noise = generator.normal(len(total), 1, self.width)[:, 0].to(total.dtype)
        return self.actions(total + noise), {"total": total}


class HeadDrawsGlobally(Head):
    def forward(self, context, generator):
        total = self.history(context.readout)
        return self.actions(total + torch.randn_like(total))


class HeadKeepsRowsTogether(Head):
    def initial_state(self, rows):
        return {"total": torch.zeros(1, self.width)}


class HeadSharesState(Head):
    """Every row remembers the same, so that none can begin anew."""

    def act(self, context, state, generator):
        actions, state = super().act(context, state, generator)
        return actions, {"total": state["total"].sum(0, keepdim=True).expand_as(state["total"])}


class HeadAcrossSamples(Head):
    def actions(self, total):
        actions = super().actions(total)
        return (actions + actions.mean(0)) / 2


class HeadSeesLaterFrames(Head):
    def history(self, readout):
        return readout.mean(2).flip(1).cumsum(1).flip(1)


class HeadForgetsState(Head):
    def act(self, context, state, generator):
        return super().act(context, self.initial_state(len(context.readout)), generator)


class HeadHidesState(Head):
    calls = 0

    def actions(self, total):
        self.calls += 1
        return super().actions(total / self.calls)


class HeadActsOnHiddenState(Head):
    total = 0

    def act(self, context, state, generator):
        self.total = self.total + context.readout.mean(2)[:, 0]
        return self.actions(self.total), {}


class HeadIgnoresActionMask(Head):
    def loss(self, context, batch, generator):
        return {"action": (self(context, generator) - batch.actions).square().mean()}


class HeadWithUndefinedLoss(Head):
    def loss(self, context, batch, generator):
        wrong = (self(context, generator) - batch.actions).square() * batch.action_mask
        return {"action": wrong.sum() / batch.action_mask.sum()}


class HeadWithDetachedLoss(Head):
    def loss(self, context, batch, generator):
        return {
            name: term.detach() for name, term in super().loss(context, batch, generator).items()
        }


class HeadWithATermThatComesAndGoes(Head):
    def loss(self, context, batch, generator):
        terms = super().loss(context, batch, generator)
        return terms | ({"decay": 0 * terms["action"]} if batch.action_mask.any() else {})


class HeadWithATermInTrainingAlone(Head):
    def loss(self, context, batch, generator):
        terms = super().loss(context, batch, generator)
        return terms | ({"decay": 0 * terms["action"]} if self.training else {})


class HeadCallsATermTotal(Head):
    def loss(self, context, batch, generator):
        return {"total": super().loss(context, batch, generator)["action"]}


class HeadForgetsToSave(Head):
    def __init__(self, config, *, context, action):
        super().__init__(config, context=context, action=action)
        self.register_buffer("scale", torch.rand(context.width), persistent=False)

    def actions(self, total):
        return super().actions(total * self.scale)


class HeadOverflowsInBfloat16(Head):
    def __init__(self, config, *, context, action):
        super().__init__(config, context=context, action=action)
        self.register_buffer("decay", torch.tensor(0.999), persistent=False)

    def actions(self, total):
        return super().actions(total.sign() * 0 / (1 - self.decay) + total)


class HeadOfOneFrame(Head):
    def forward(self, context, generator):
        return super().forward(context, generator)[:, -1]


class TokensHead(Head):
    """Adds the mean of all tokens that a frame may see to its readout."""

    needs = frozenset({"tokens"})

    def visible(self, context):
        return context.attention_mask(1)[:, 0, :, : context.memory.tokens.shape[1]]  # (S F L)

    def mean_token(self, context):
        weights = self.visible(context).to(context.readout.dtype)
        mean = weights @ context.memory.tokens / weights.sum(-1, keepdim=True)
        return context.unfold(mean).squeeze(2)  # (B T D)

    def forward(self, context, generator):
        return self.actions(self.history(context.readout) + self.mean_token(context))

    def act(self, context, state, generator):
        total = state["total"] + context.readout.mean(2)[:, 0]
        return self.actions(total + self.mean_token(context)[:, 0]), {"total": total}


class TokensHeadSeesPadding(TokensHead):
    def visible(self, context):
        frame = context.memory.sequence.frame
        return frame[:, None, :] <= context.fold(context.frame[..., None])[:, :, None]


class TokensHeadDeclaresNothing(TokensHead):
    needs = frozenset()


class HeadMisspellsNeed(Head):
    needs = frozenset({"token"})


class HeadLosesState(Head):
    def history(self, readout):
        return readout.mean(2)

    def act(self, context, state, generator):
        return self.actions(context.readout.mean(2)[:, 0]), {}


class HeadValidatesSamples(Head):
    def validation_error(self, context, batch, generator):
        return masked_mean_per_sample(
            (self(context, generator) - batch.actions).abs(), batch.action_mask
        )


class HeadValidatesFrames(HeadValidatesSamples):
    def validation_error(self, context, batch, generator):
        return ((self(context, generator) - batch.actions).abs() * batch.action_mask).mean((2, 3))


class HeadValidatesBatches(HeadValidatesSamples):
    def validation_error(self, context, batch, generator):
        error = super().validation_error(context, batch, generator)
        return error - error.mean()


class CarryingHead(Head):
    """Goes on summing in the next window."""

    carries = True

    def totals(self, context):
        total = context.readout.mean(2).cumsum(1)
        return total if context.state is None else total + context.state["total"][:, None]

    def forward(self, context, generator):
        return self.actions(self.totals(context))

    def next_state(self, context):
        return {"total": self.totals(context)[:, -1]}


class CarryingHeadStartsAfresh(CarryingHead):
    def forward(self, context, generator):
        return self.actions(self.history(context.readout))

    def loss(self, context, batch, generator):
        actions = self.actions(self.totals(context))
        return {"action": masked_mse(actions, batch.actions, batch.action_mask)}


class CarryingHeadLearnsAfresh(CarryingHead):
    def loss(self, context, batch, generator):
        actions = self.actions(self.history(context.readout))
        return {"action": masked_mse(actions, batch.actions, batch.action_mask)}


class CarryingHeadForgetsTheWindowBeforeLast(CarryingHead):
    def next_state(self, context):
        return {"total": self.history(context.readout)[:, -1]}


class CarryingHeadActsOnItsOwn(CarryingHead):
    def act(self, context, state, generator):
        actions, state = super().act(context, {"total": state["count"][:, 1:]}, generator)
        return actions, {"count": torch.cat([state["total"][:, :1], state["total"]], dim=1)}

    def initial_state(self, rows):
        return {"count": self.project.weight.new_zeros(rows, 1 + self.width)}


class CarryingHeadMixesRows(CarryingHead):
    def totals(self, context):
        total = self.history(context.readout)
        return total if context.state is None else total + context.state["total"].sum(0)


class CarryingHeadLacksNextState(Head):
    carries = True


BROKEN = [
    (HeadAcrossSamples, {"samples_are_independent", "state_is_rows"}),
    (HeadSeesLaterFrames, {"later_frames_are_not_seen", "window_is_frame_by_frame"}),
    (HeadForgetsState, {"window_is_frame_by_frame"}),
    (HeadHidesState, {"output_is_repeatable"}),
    (HeadActsOnHiddenState, {"window_is_frame_by_frame", "state_is_rows"}),
    (HeadDrawsGlobally, {"nothing_is_drawn_from_the_global_generator", "output_is_repeatable"}),
    (HeadKeepsRowsTogether, {"state_is_rows"}),
    (HeadSharesState, {"window_is_frame_by_frame"}),
    (HeadIgnoresActionMask, {"masked_actions_do_not_count"}),
    (HeadWithUndefinedLoss, {"masked_actions_do_not_count"}),
    (HeadWithDetachedLoss, {"loss_is_scalar_terms", "loss_falls_in_training"}),
    (HeadWithATermThatComesAndGoes, {"loss_terms_keep_their_names"}),
    (HeadWithATermInTrainingAlone, {"loss_terms_keep_their_names"}),
    (HeadCallsATermTotal, {"loss_terms_keep_their_names"}),
    (TokensHeadSeesPadding, {"padding_is_not_seen"}),
    (HeadMisspellsNeed, {"needs_are_known"}),
    (HeadValidatesFrames, {"validation_error_is_a_figure_per_sample"}),
    (HeadValidatesBatches, {"validation_error_is_a_figure_per_sample"}),
    (HeadForgetsToSave, {"state_dict_round_trip"}),
    (HeadOverflowsInBfloat16, {"bfloat16_is_finite"}),
    (HeadOfOneFrame, {"builds_and_runs"}),
    (
        CarryingHeadStartsAfresh,
        {"windows_with_carried_state_are_one_window"},
    ),
    (CarryingHeadLearnsAfresh, {"loss_reads_the_carried_state"}),
    (
        CarryingHeadForgetsTheWindowBeforeLast,
        {"windows_with_carried_state_are_one_window"},
    ),
    (
        CarryingHeadMixesRows,
        {"windows_with_carried_state_are_one_window", "carried_state_is_reset_by_row"},
    ),
]
# What these compute is so wrong that other checks fail as well.
FAIL_OTHERS_TOO = {HeadHidesState, HeadDrawsGlobally}


class HeadWithoutTerms(Head):
    def loss(self, context, batch, generator):
        return super().loss(context, batch, generator)["action"]


@pytest.mark.parametrize("build", [Head, NoisyHead, TokensHead, HeadValidatesSamples, CarryingHead])
def test_a_sound_head_passes_every_check(build):
    assert not failures("policy_head", build)


def test_a_head_can_read_no_more_than_it_declares_in_needs():
    errors = failures("policy_head", TokensHeadDeclaresNothing)
    assert list(errors) == ["builds_and_runs"]
    message = "the context holds no memory: the head must say in `needs` what it reads of that"
    assert message in str(errors["builds_and_runs"])


def test_a_loss_without_names_is_said_once():
    errors = failures("policy_head", HeadWithoutTerms)
    assert list(errors) == ["builds_and_runs"]
    message = "loss: expected a dict of at least one named scalar tensor, received tensor("
    assert str(errors["builds_and_runs"]).startswith(message)


def test_a_state_that_changes_its_keys_fails():
    errors = failures("policy_head", HeadLosesState)
    assert "expected the keys ['total'], received []" in str(errors["state_is_rows"])


def test_a_carried_state_must_be_the_state_of_act():
    assert "carried_state_is_reset_by_row" in failures("policy_head", CarryingHeadActsOnItsOwn)


def test_a_head_that_carries_must_say_its_next_state():
    errors = failures("policy_head", CarryingHeadLacksNextState)
    assert "carries no state" in str(errors["windows_with_carried_state_are_one_window"])


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_head_fails_the_checks_of_its_rule(build, expected):
    assert_fails("policy_head", build, expected, others_too=build in FAIL_OTHERS_TOO)
