from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_mbrl.models import RecurrentDynamics, RecurrentWorldModel, RewardModel, State, TerminationModel, WorldModel
from lit_mbrl.networks import orthogonal_

O, A, HIDDEN, LAYERS, T, B = 3, 2, 5, 2, 4, 6  # noqa: E741


@pytest.fixture
def dynamics() -> RecurrentDynamics:
    # Orthogonal weights: torch's default ones shrink the signals that these tests look for.
    return orthogonal_(RecurrentDynamics(O, A, hidden_size=HIDDEN, gru_layers=LAYERS)).double()


@pytest.fixture
def sequence() -> tuple[Tensor, Tensor]:
    return torch.randn(B, O, dtype=torch.float64), torch.randn(B, T, A, dtype=torch.float64)


def test_default_sizes_are_the_papers() -> None:
    dynamics = RecurrentDynamics(O, A)
    assert len(dynamics.cells) == 2 and dynamics.deter_size == 1024
    linear = [
        [(m.in_features, m.out_features) for m in part if isinstance(m, nn.Linear)]
        for part in (dynamics.encoder, dynamics.decoder)
    ]
    assert linear == [[(O + A, 512), (512, 512), (512, 512)], [(512, 512), (512, 512), (512, O)]]


def test_hidden_state_is_zero_at_the_start(dynamics: RecurrentDynamics, sequence: tuple[Tensor, Tensor]) -> None:
    state = dynamics.initial(sequence[0])
    assert torch.equal(state.observation, sequence[0])
    assert torch.equal(state.deter, torch.zeros(B, LAYERS * HIDDEN, dtype=torch.float64))


def test_predicts_a_residual(dynamics: RecurrentDynamics, sequence: tuple[Tensor, Tensor]) -> None:
    x, u = sequence
    for parameter in dynamics.decoder.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(dynamics.unroll(x, u), x.unsqueeze(1).expand(B, T, O))
    state = dynamics.step(dynamics.initial(x), u[:, 0])
    assert torch.equal(state.observation, x) and state.deter.abs().min() > 0


def test_unroll_is_step_by_step(dynamics: RecurrentDynamics, sequence: tuple[Tensor, Tensor]) -> None:
    x, u = sequence
    state = dynamics.initial(x)
    for t, predicted in enumerate(dynamics.unroll(x, u).unbind(1)):
        state = dynamics.step(state, u[:, t])
        assert torch.equal(state.observation, predicted)
    # The values do not depend on where the gradient is stopped.
    assert torch.equal(dynamics.unroll(x, u, detach_state=True), dynamics.unroll(x, u))


def test_equals_torch_gru_with_copied_weights(dynamics: RecurrentDynamics, sequence: tuple[Tensor, Tensor]) -> None:
    x, u = sequence
    gru = nn.GRU(HIDDEN, HIDDEN, num_layers=LAYERS, batch_first=True).double()
    for layer, cell in enumerate(dynamics.cells):
        for name, value in cell.named_parameters():
            getattr(gru, f"{name}_l{layer}").data.copy_(value)
    hidden = torch.zeros(LAYERS, B, HIDDEN, dtype=torch.float64)
    state = dynamics.initial(x)
    for t in range(T):
        z = dynamics.encoder(torch.cat([x, u[:, t]], -1))
        output, hidden = gru(z.unsqueeze(1), hidden)
        x = x + dynamics.decoder(output.squeeze(1))
        state = dynamics.step(state, u[:, t])
        torch.testing.assert_close(state.observation, x, atol=1e-12, rtol=0)
        torch.testing.assert_close(state.deter, torch.cat(list(hidden), -1), atol=1e-12, rtol=0)


def functional_unroll(dynamics: RecurrentDynamics, x: Tensor, u: Tensor, *parameters: Tensor) -> Tensor:
    named = {f"dynamics.{k}": v for (k, _), v in zip(dynamics.named_parameters(), parameters, strict=True)}
    return torch.func.functional_call(_Unroll(dynamics), named, (x, u))


class _Unroll(nn.Module):
    def __init__(self, dynamics: RecurrentDynamics) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return self.dynamics.unroll(x, u)


def test_unroll_gradcheck() -> None:
    dynamics = RecurrentDynamics(2, 1, hidden_size=3).double()
    # Softplus for ReLU: the finite differences of gradcheck must not straddle a kink.
    for part in (dynamics.encoder, dynamics.decoder):
        for index, layer in enumerate(part):
            if isinstance(layer, nn.ReLU):
                part[index] = nn.Softplus()
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, 3, 1, dtype=torch.float64, requires_grad=True)
    parameters = [p.detach().clone().requires_grad_() for p in dynamics.parameters()]
    assert torch.autograd.gradcheck(lambda *inputs: functional_unroll(dynamics, *inputs), (x, u, *parameters))


def two_step_gradient(dynamics: RecurrentDynamics, x: Tensor, u: Tensor, stop_x: bool, stop_h: bool) -> Tensor:
    """d x_3 / d u_1 by hand, with the gradient stopped at the named part of the state in between."""
    u = u.clone().requires_grad_()
    observation, deter = dynamics.step(dynamics.initial(x), u[:, 0])
    state = State(observation.detach() if stop_x else observation, deter.detach() if stop_h else deter)
    last = dynamics.step(state, u[:, 1]).observation
    return torch.autograd.grad(last.sum(), u)[0][:, 0]


def test_detach_state_cuts_the_gradient_through_x_but_not_through_h(
    dynamics: RecurrentDynamics, sequence: tuple[Tensor, Tensor]
) -> None:
    x, u = sequence[0], sequence[1][:, :2]
    gradient = {}
    for detach in (False, True):
        actions = u.clone().requires_grad_()
        last = dynamics.unroll(x, actions, detach_state=detach)[:, -1]
        gradient[detach] = torch.autograd.grad(last.sum(), actions)[0][:, 0]
    only_h = two_step_gradient(dynamics, x, u, stop_x=True, stop_h=False)
    torch.testing.assert_close(gradient[True], only_h, atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient[False], two_step_gradient(dynamics, x, u, False, False), atol=1e-12, rtol=0)
    assert only_h.abs().max() > 1e-4  # it does flow through h
    assert (gradient[True] - gradient[False]).abs().max() > 1e-4  # and something is cut
    assert two_step_gradient(dynamics, x, u, stop_x=True, stop_h=True).abs().max() == 0  # there is no third way


def test_detach_state_keeps_the_gradient_to_the_first_observation_through_h(
    dynamics: RecurrentDynamics, sequence: tuple[Tensor, Tensor]
) -> None:
    x = sequence[0].clone().requires_grad_()
    last = dynamics.unroll(x, sequence[1], detach_state=True)[:, -1]
    assert torch.autograd.grad(last.sum(), x)[0].abs().max() > 0


def test_world_model_verbs() -> None:
    model = RecurrentWorldModel(RecurrentDynamics(O, A, HIDDEN), RewardModel(O, A, [8]), TerminationModel(O, A, [8]))
    assert isinstance(model, WorldModel)
    assert {name for name, _ in model.named_children()} == {"dynamics", "reward_model", "termination_model"}
    x, u = torch.randn(B, O), torch.randn(B, A)
    state = model.initial(x)
    assert torch.equal(model.observation(state), x)
    following, reward, logit = model.step(state, u)
    assert torch.equal(reward, model.reward_model(x, u)) and torch.equal(logit, model.termination_model(x, u))
    assert reward.shape == logit.shape == (B, 1)
    assert all(torch.equal(a, b) for a, b in zip(following, model.dynamics.step(state, u), strict=True))
    assert torch.equal(model.observation(following), following.observation)
    actions = torch.randn(B, T, A)
    assert torch.equal(model.unroll(x, actions), model.dynamics.unroll(x, actions))


def test_heads_take_any_batch_axes() -> None:
    head = RewardModel(O, A, [8])
    x, u = torch.randn(B, T, O), torch.randn(B, T, A)
    torch.testing.assert_close(head(x, u)[:, 1], head(x[:, 1], u[:, 1]))
    assert head(x, u).shape == (B, T, 1)
