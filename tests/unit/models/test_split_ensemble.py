from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_mbrl.models import SplitEnsemble, SplitEnsembleConfig
from lit_mbrl.networks import EnsembleMLP
from lit_mbrl.utils.errors import OptionError
from tests.helpers.frames import make_frames

B, OBS, A, M, N = 6, 3, 2, 3, 2


def model(**options: object) -> SplitEnsemble:
    return SplitEnsemble(OBS, A, M, N, [8, 8], [8], **options)


def member(networks: EnsembleMLP, i: int, x: Tensor) -> Tensor:
    """One member by itself, layer by layer."""
    *hidden, last = zip(networks.weights, networks.biases, strict=True)
    for weight, bias in hidden:
        x = torch.relu(x @ weight[i] + bias[i])
    return x @ last[0][i] + last[1][i]


def test_a_step_is_each_member_s_own() -> None:
    ensemble = model()
    state, action = torch.randn(M * B, OBS), torch.randn(M * B, A)
    step = ensemble.step(state, action)
    for i in range(M):
        rows = slice(i * B, (i + 1) * B)
        x, u = state[rows], action[rows]
        following = x + member(ensemble.dynamics, i, torch.cat([x, u], -1))
        heads = torch.cat([following, x, u], -1)
        torch.testing.assert_close(step.state[rows], following)
        torch.testing.assert_close(step.termination_logit[rows], member(ensemble.termination_model, i, heads))
        for n in range(N):
            torch.testing.assert_close(step.reward[rows, n : n + 1], member(ensemble.reward_model, n, heads))


@torch.no_grad()
def test_each_member_learns_from_its_own_rows() -> None:
    ensemble, frames = model(), make_frames(B)
    x, u, following = frames["observation"], frames["action"], frames["next", "observation"]
    heads = torch.cat([following, x, u], -1)
    total = 0.0
    for i, rows in enumerate(torch.arange(B).chunk(M)):
        delta = member(ensemble.dynamics, i, torch.cat([x, u], -1)[rows])
        total += 0.5 * float(((following - x)[rows] - delta).square().sum())
    assert float(ensemble.dynamics_loss(frames)) == pytest.approx(total / B, rel=1e-5)
    total = 0.0
    for i, rows in enumerate(torch.arange(B).chunk(N)):
        predicted = member(ensemble.reward_model, i, heads[rows])
        total += 0.5 * float((predicted - frames["next", "reward"][rows]).square().sum())
    assert float(ensemble.reward_loss(frames)) == pytest.approx(total / B, rel=1e-5)
    total = 0.0
    for i, rows in enumerate(torch.arange(B).chunk(M)):
        p = member(ensemble.termination_model, i, heads[rows]).sigmoid()
        ended = frames["next", "terminated"][rows]
        total -= float(torch.where(ended, p, 1.0 - p).log().sum())
    assert float(ensemble.termination_loss(frames)) == pytest.approx(total / B, rel=1e-5)


@torch.no_grad()
def test_members_may_learn_from_all_rows() -> None:
    ensemble, frames = model(data="batch"), make_frames(B)
    x, following = frames["observation"], frames["next", "observation"]
    inputs = torch.cat([x, frames["action"]], -1)
    errors = [(following - x - member(ensemble.dynamics, i, inputs)).square().sum(-1).mean() for i in range(M)]
    torch.testing.assert_close(ensemble.dynamics_loss(frames), 0.5 * torch.stack(errors).mean())


@torch.no_grad()
def test_decay_is_half_the_squared_weights_of_all_members() -> None:
    frames = make_frames(B)
    free = model()
    decayed = model(weight_decay=0.1)
    decayed.load_state_dict(free.state_dict())
    expected = 0.05 * sum(float(weight.square().sum()) for weight in free.dynamics.weights)
    assert float(decayed.dynamics_loss(frames) - free.dynamics_loss(frames)) == pytest.approx(expected, rel=1e-4)


def test_a_known_termination_is_certain_and_has_no_network() -> None:
    ensemble = model(rule=lambda x, u, following: following[:, :1] > 0)
    step = ensemble.step(torch.randn(M * B, OBS), torch.randn(M * B, A))
    assert ensemble.termination_model is None
    assert torch.equal(step.termination_logit, torch.where(step.state[:, :1] > 0, torch.inf, -torch.inf))


def test_unroll_is_the_mean_of_the_members_rollouts() -> None:
    ensemble = model()
    x, actions = torch.randn(B, OBS), torch.randn(B, 2, A)
    states = [x] * M
    for t in range(2):
        states = [s + member(ensemble.dynamics, i, torch.cat([s, actions[:, t]], -1)) for i, s in enumerate(states)]
        torch.testing.assert_close(ensemble.unroll(x, actions)[:, t], torch.stack(states).mean(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_transitions": 0}, "model.world_model.num_transitions=0"),
        ({"num_rewards": 0}, "model.world_model.num_rewards=0"),
        ({"hidden_sizes": [8, 0]}, "model.world_model.hidden_sizes=[8, 0]"),
        ({"head_sizes": [0]}, "model.world_model.head_sizes=[0]"),
        ({"lr": 0.0}, "model.world_model.lr=0.0"),
        ({"weight_decay": -1.0}, "model.world_model.weight_decay=-1.0"),
        ({"termination": "guessed"}, "model.world_model.termination=guessed"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError) as error:
        SplitEnsembleConfig(**options)
    assert message in str(error.value)


def test_a_rule_that_there_is_not_is_refused() -> None:
    with pytest.raises(OptionError, match="termination=known"):
        SplitEnsembleConfig(termination="known").build(OBS, A)
