from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.utils._pytree import tree_map

from lit_mbrl.imagination import imagine
from lit_mbrl.losses import value_gradient_loss
from lit_mbrl.models import RecurrentDynamics, RecurrentWorldModel, RewardModel, Step, TerminationModel
from lit_mbrl.networks import QEnsemble, TanhGaussianActor, orthogonal_
from lit_mbrl.returns import survival, value_expansion

O, A = 2, 1  # noqa: E741


class Counter:
    """A model one can follow by hand: the state is the observation, the action is added to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def initial(self, observation: Tensor) -> Tensor:
        self.calls.append("initial")
        return observation

    def step(self, state: Tensor, action: Tensor) -> Step[Tensor]:
        self.calls.append("step")
        return Step(state + action, 1000.0 * state + action, state - 2.0 * action)

    def termination_logit(self, state: Tensor, action: Tensor) -> Tensor:
        self.calls.append("termination_logit")
        return state - 2.0 * action

    def observation(self, state: Tensor) -> Tensor:
        self.calls.append("observation")
        return state


def policy(observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    return 10.0 * noise, observation + 0.5 * noise


def test_order_of_steps_and_noise() -> None:
    model = Counter()
    noise = torch.tensor([[[1.0], [2.0], [3.0], [4.0]], [[-1.0], [0.0], [5.0], [7.0]]])
    start = torch.tensor([[0.5], [-0.5]])
    imagined = imagine(policy, model, start, noise)
    x = start + torch.cat([torch.zeros(2, 1, 1), 10.0 * noise[:, :3].cumsum(1)], 1).squeeze(-1)  # [B, H+1]
    u = 10.0 * noise.squeeze(-1)
    assert torch.equal(imagined.observation.squeeze(-1), x)
    assert torch.equal(imagined.action.squeeze(-1), u)
    assert torch.equal(imagined.log_prob.squeeze(-1), x + 0.5 * noise.squeeze(-1))
    assert torch.equal(imagined.reward.squeeze(-1), 1000.0 * x[:, :3] + u[:, :3])
    assert torch.equal(imagined.termination_prob.squeeze(-1), torch.sigmoid(x[:, :3] - 2.0 * u[:, :3]))
    assert model.calls == ["initial"] + 3 * ["step", "observation"]


def test_the_last_termination_is_one_call_more_and_changes_nothing_else() -> None:
    model, noise, start = Counter(), torch.randn(2, 3, 1), torch.randn(2, 1)
    without = imagine(policy, model, start, noise)
    model.calls.clear()
    imagined = imagine(policy, model, start, noise, last_termination=True)
    assert model.calls == ["initial"] + 2 * ["step", "observation"] + ["termination_logit"]
    assert all(torch.equal(a, b) for a, b in zip(imagined[:4], without[:4], strict=True))
    x, u = imagined.observation, imagined.action
    assert torch.equal(imagined.termination_prob, torch.sigmoid(x - 2.0 * u))  # [B, H+1, 1]
    assert torch.equal(imagined.termination_prob[:, :2], without.termination_prob)


def test_horizon_zero_never_calls_the_model() -> None:
    model = Counter()
    observation, noise = torch.randn(4, 1), torch.randn(4, 1, 1)
    imagined = imagine(policy, model, observation, noise)
    assert model.calls == []
    assert torch.equal(imagined.observation[:, 0], observation)
    action, log_prob = policy(observation, noise[:, 0])
    assert torch.equal(imagined.action[:, 0], action) and torch.equal(imagined.log_prob[:, 0], log_prob)
    assert imagined.reward.shape == imagined.termination_prob.shape == (4, 0, 1)


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_shapes_with_the_recurrent_model(horizon: int) -> None:
    actor = TanhGaussianActor(O, A, [8])
    model = RecurrentWorldModel(RecurrentDynamics(O, A, 8), RewardModel(O, A, [8]), TerminationModel(O, A, [8]))
    imagined = imagine(actor.sample, model, torch.randn(5, O), torch.randn(5, horizon + 1, A))
    shapes = {name: tuple(value.shape) for name, value in imagined._asdict().items()}
    assert shapes == {
        "observation": (5, horizon + 1, O),
        "action": (5, horizon + 1, A),
        "log_prob": (5, horizon + 1, 1),
        "reward": (5, horizon, 1),
        "termination_prob": (5, horizon, 1),
    }


def test_wrong_shapes_are_caught() -> None:
    with pytest.raises(TypeCheckError):
        imagine(policy, Counter(), torch.randn(4, 1), torch.randn(4, 1))
    with pytest.raises(TypeCheckError):
        imagine(policy, Counter(), torch.randn(4, 1), torch.randn(3, 2, 1))


def smooth(module: nn.Module) -> nn.Module:
    """Softplus for ReLU, in float64: finite differences must not straddle a kink."""
    for child in list(module.modules()):
        if isinstance(child, nn.Sequential):
            for index, layer in enumerate(child):
                if isinstance(layer, nn.ReLU):
                    child[index] = nn.Softplus()
    return module.double()


class Agent(nn.Module):
    """The value of an imagined rollout as a function of every parameter and of the start."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = TanhGaussianActor(O, A, [3])
        self.model = RecurrentWorldModel(
            RecurrentDynamics(O, A, hidden_size=3), RewardModel(O, A, [3]), TerminationModel(O, A, [3])
        )
        self.critic = QEnsemble(O, A, [3])

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        imagined = imagine(self.actor.sample, self.model, observation, noise)
        q = self.critic(imagined.observation[:, -1], imagined.action[:, -1]).amin(0)
        value = value_expansion(imagined.reward, imagined.log_prob, q, 0.2, 0.9, survival(imagined.termination_prob))
        return value_gradient_loss(value)


def test_gradcheck_of_the_whole_imagined_rollout() -> None:
    agent = smooth(Agent())
    noise = torch.randn(2, 3, A, dtype=torch.float64)  # H = 2
    names = [name for name, _ in agent.named_parameters()]

    def loss(observation: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(agent, dict(zip(names, parameters, strict=True)), (observation, noise))

    parameters = [p.detach().clone().requires_grad_() for p in agent.parameters()]
    observation = torch.randn(2, O, dtype=torch.float64, requires_grad=True)
    assert gradcheck(loss, (observation, *parameters))
    # The check would pass on zeros: every part of the agent must matter to the value.
    gradients = torch.autograd.grad(loss(observation, *parameters).sum(), parameters)
    for part in ("actor", "model.dynamics", "model.reward_model", "model.termination_model", "critic"):
        assert max(g.abs().max() for name, g in zip(names, gradients, strict=True) if name.startswith(part)) > 1e-6


def test_gradient_of_the_actor_flows_through_every_part_of_the_model() -> None:
    """Freezing the state, the reward or the termination changes the actor's gradient: none of the paths is cut."""

    def actor_gradient(cut: str) -> Tensor:
        torch.manual_seed(1)
        agent = orthogonal_(smooth(Agent()))  # torch's default weights shrink the signals looked for here
        if cut:
            verb = agent.model.step

            def detached(*args: object) -> Step:
                out = verb(*args)
                field = getattr(out, cut)
                return out._replace(**{cut: tree_map(torch.Tensor.detach, field)})

            agent.model.step = detached
        observation = torch.randn(4, O, dtype=torch.float64)
        loss = agent(observation, torch.randn(4, 4, A, dtype=torch.float64)).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(agent.actor.parameters()))])

    whole = actor_gradient("")
    for cut in ("state", "reward", "termination_logit"):
        assert (actor_gradient(cut) - whole).abs().max() > 1e-6, cut


def test_bfloat16_autocast_follows_float32() -> None:
    """Mixed precision: runs, differentiates, and stays near the float32 value; the discounts are not rounded."""
    agent = Agent()
    observation, noise = torch.randn(16, O), torch.randn(16, 4, A)
    exact = agent(observation, noise)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = agent(observation, noise)
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)
    rounded.mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in agent.actor.parameters())
