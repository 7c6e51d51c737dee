"""PPO and the four ways of its entropy: each objective as an explicit sum, with its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms import PPO, EntropyBonusPPO, FullMaxEntPPO, MaxEntBonusPPO, MaxEntPPO, compiled
from lit_mbrl.envs import Spec
from tests.algorithms.test_compiled import assert_same
from tests.runs import everything, fit, make_rollouts

O, A, T, N = 3, 4, 6, 2  # noqa: E741
BETA, BONUS, EPSILON, GAMMA, LMBDA = 0.3, 0.05, 0.2, 0.9, 0.8
COEFFICIENTS: dict[type[PPO], dict[str, float]] = {
    PPO: {},
    EntropyBonusPPO: {"bonus_coeff": BONUS},
    MaxEntPPO: {"entropy_coeff": BETA},
    MaxEntBonusPPO: {"entropy_coeff": BETA, "bonus_coeff": BONUS},
    FullMaxEntPPO: {"entropy_coeff": BETA},
}
KINDS = list(COEFFICIENTS)


def make(kind: type[PPO], discrete: bool = True, **options: Any) -> PPO:
    algorithm = kind(hidden_sizes=[8], gamma=GAMMA, lmbda=LMBDA, **COEFFICIENTS[kind], **options)
    algorithm.build_for(Spec("made up", O, A, discrete=discrete))
    for parameter in algorithm.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return algorithm.double()


def make_rollout(algorithm: PPO, discrete: bool = True) -> TensorDict:
    """A prepared rollout `[T, N]` of a policy that has moved on since."""
    action = torch.randint(A, (T, N)) if discrete else torch.randn(T, N, A, dtype=torch.float64)
    observation = torch.randn(T, N, O, dtype=torch.float64)
    with torch.no_grad():
        log_prob, _, value = algorithm.evaluate(observation, action)
    return TensorDict(
        {
            "observation": observation,
            "action": action,
            "log_prob": log_prob + 0.3 * torch.randn_like(log_prob),
            "value": value + 0.3 * torch.randn_like(value),
            "advantage": torch.randn(T, N, 1, dtype=torch.float64),
            "done": torch.rand(T, N, 1) < 0.3,
        },
        [T, N],
    )


def explicit(algorithm: PPO, rollout: TensorDict, index: Tensor, standardize: bool) -> Tensor:
    """The loss by a loop over the minibatch, from the classes' table."""
    kind = type(algorithm)
    frames = [(int(i) // N, int(i) % N) for i in index]

    def entropy(t: int, n: int) -> Tensor:
        _, found, _ = algorithm.evaluate(rollout["observation"][t, n][None], rollout["action"][t, n][None])
        return found[0, 0]

    advantages = []
    for t, n in frames:
        advantage = rollout["advantage"][t, n, 0]
        if kind in (MaxEntPPO, MaxEntBonusPPO):
            advantage = advantage + BETA * entropy(t, n)
        if kind is FullMaxEntPPO:
            for i in range(t, T):
                advantage = advantage + BETA * (GAMMA * LMBDA) ** (i - t) * entropy(i, n)
                if rollout["done"][i, n]:
                    break
        advantages.append(advantage)
    plain = torch.stack(advantages)
    weights = (plain - plain.mean().detach()) / (plain.std().detach() + 1e-8) if standardize else plain
    total = torch.zeros((), dtype=torch.float64)
    for (t, n), advantage, weight in zip(frames, plain, weights, strict=True):
        log_prob, _, value = algorithm.evaluate(rollout["observation"][t, n][None], rollout["action"][t, n][None])
        ratio = (log_prob[0, 0] - rollout["log_prob"][t, n, 0]).exp()
        cut = min(max(ratio.item(), 1 - EPSILON), 1 + EPSILON)
        objective = ratio * weight if (ratio * weight).item() <= cut * weight.item() else cut * weight
        error = (value[0, 0] - (advantage.detach() + rollout["value"][t, n, 0])) ** 2
        bonus = BONUS * entropy(t, n) if kind in (EntropyBonusPPO, MaxEntBonusPPO) else 0.0
        total = total + (-objective + 0.5 * error - bonus) / len(frames)
    return total


def gradients(loss: Tensor, algorithm: PPO) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(algorithm.parameters()), materialize_grads=True)
    return {name: gradient for (name, _), gradient in zip(algorithm.named_parameters(), found, strict=True)}


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_and_its_gradient_are_the_explicit_sum(
    kind: type[PPO], discrete: bool, standardize: bool
) -> None:
    algorithm = make(kind, discrete, standardize_advantages=standardize)
    rollout = make_rollout(algorithm, discrete)
    index = torch.randperm(T * N)[:7]
    batch = algorithm.minibatch(rollout if kind is FullMaxEntPPO else rollout.exclude("done"), index)
    found, expected = algorithm.loss(batch), explicit(algorithm, rollout, index, standardize)
    torch.testing.assert_close(found, expected)
    ours, theirs = gradients(found, algorithm), gradients(expected, algorithm)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)


def actor_gradient(algorithm: PPO, advantage: float) -> Tensor:
    """The policy's gradient at equal policies and constant advantages, less what the ratios have of it."""
    rollout = make_rollout(algorithm)
    with torch.no_grad():
        rollout["log_prob"], _, _ = algorithm.evaluate(rollout["observation"], rollout["action"])
    rollout["advantage"].fill_(advantage)
    batch = algorithm.minibatch(rollout, torch.arange(T * N))
    found = torch.cat([gradient.flatten() for name, gradient in gradients(algorithm.loss(batch), algorithm).items()
                       if name.startswith("actor")])  # fmt: skip
    log_prob, _, _ = algorithm.evaluate(rollout["observation"], rollout["action"])
    with torch.no_grad():
        weight = algorithm.advantage(batch, algorithm.actor.entropy(batch["observation"]))
    by_ratio = -(weight * log_prob.flatten(0, 1)).mean()  # at equal policies the ratio's gradient is log pi's
    rest = torch.autograd.grad(by_ratio, list(algorithm.actor.parameters()))
    return found - torch.cat([gradient.flatten() for gradient in rest])


@pytest.mark.parametrize("kind", [MaxEntPPO, MaxEntBonusPPO, FullMaxEntPPO])
def test_the_entropy_in_the_advantage_reaches_the_policy_beside_the_ratio(kind: type[PPO]) -> None:
    torch.manual_seed(3)
    algorithm = make(kind, standardize_advantages=False)
    assert actor_gradient(algorithm, 0.0).norm() > 1e-3
    torch.manual_seed(3)
    assert actor_gradient(make(PPO, standardize_advantages=False), 1.0).norm() < 1e-12


def test_one_step_s_direct_gradient_is_that_of_a_bonus_of_the_same_size() -> None:
    """At equal policies `<r A(beta)>` and `<A(0) grad r + r beta grad H>`: beta <grad H> beside the ratios."""
    algorithm = make(MaxEntPPO, standardize_advantages=False)
    torch.manual_seed(5)
    found = actor_gradient(algorithm, 0.4)
    torch.manual_seed(5)
    rollout = make_rollout(algorithm)
    entropy = algorithm.actor.entropy(rollout["observation"]).mean()
    expected = torch.autograd.grad(-BETA * entropy, list(algorithm.actor.parameters()))
    torch.testing.assert_close(found, torch.cat([gradient.flatten() for gradient in expected]))


def test_differentiated_statistics_take_the_direct_gradient_away() -> None:
    """What the file says about standardising inside of the graph, at equal policies."""
    norms = {}
    for statistics in ("constant", "differentiated"):
        algorithm = make(MaxEntPPO, entropy_statistics=statistics)
        rollout = make_rollout(algorithm)
        with torch.no_grad():
            rollout["log_prob"], _, _ = algorithm.evaluate(rollout["observation"], rollout["action"])
        batch = algorithm.minibatch(rollout, torch.arange(T * N))
        entropy = algorithm.actor.entropy(batch["observation"])
        weight = algorithm.standardize(algorithm.advantage(batch, entropy))
        gradient = torch.autograd.grad(weight.mean(), list(algorithm.actor.parameters()))
        norms[statistics] = torch.cat([part.flatten() for part in gradient]).norm().item()
    assert norms["differentiated"] < 1e-10 < 1e-2 < norms["constant"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_value_s_target_leaks_nothing_into_the_loss_s_gradient(kind: type[PPO]) -> None:
    """The critic learns from its own output alone, and the policy hears nothing of the value's error."""
    algorithm = make(kind, standardize_advantages=False, value_coeff=1.0)
    silent = make(kind, standardize_advantages=False, value_coeff=0.0)
    silent.load_state_dict(algorithm.state_dict())
    rollout = make_rollout(algorithm)
    batch = algorithm.minibatch(rollout, torch.arange(T * N))
    with_error, without = gradients(algorithm.loss(batch), algorithm), gradients(silent.loss(batch), silent)
    for name, gradient in with_error.items():
        if name.startswith("actor"):
            torch.testing.assert_close(gradient, without[name])
        else:
            assert without[name].abs().max() == 0 and gradient.abs().max() > 0


class Losses(Callback):
    """The learning rate and whether weights moved, of every round."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.moved: list[bool] = []
        self._before: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self._before = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        pairs = zip(self._before, pl_module.parameters(), strict=True)
        self.moved.append(any(not torch.equal(before, after) for before, after in pairs))


def test_learning_rate_falls_linearly_with_rollouts() -> None:
    watch = Losses()
    fit(PPO(hidden_sizes=[8], lr=0.03, anneal_lr=True), make_rollouts(), watch)
    assert watch.rates == pytest.approx([0.03] * 10 + [0.02] * 10 + [0.01] * 10)


def test_target_kl_ends_a_rollout_s_epochs_and_no_more() -> None:
    watch = Losses()
    fit(PPO(hidden_sizes=[8], lr=0.1, target_kl=1e-4), make_rollouts(), watch)
    for rollout in range(3):
        moved = watch.moved[10 * rollout : 10 * rollout + 10]
        steps = moved.index(False)
        assert 2 <= steps < 10 and moved == [True] * steps + [False] * (10 - steps)
    watch = Losses()
    fit(PPO(hidden_sizes=[8], lr=0.1, target_kl=1e4), make_rollouts(), watch)
    assert all(watch.moved)


def test_gradient_is_clipped_over_all_networks_together() -> None:
    moments = []
    for norm in (1e-3, 1e9):
        algorithm = PPO(hidden_sizes=[8], max_grad_norm=norm)
        fit(algorithm, make_rollouts(total_frames=20, num_epochs=1, batch_size=20))
        state = algorithm.trainer.optimizers[0].state_dict()["state"]
        moments.append(torch.cat([entry["exp_avg"].flatten() for entry in state.values()]) / 0.1)  # the gradient
    clipped, free = moments
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_minibatch_is_the_eager_one(kind: type[PPO], monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced graph as it is; `test_inductor_compiles_a_minibatch` has it compiled."""
    monkeypatch.setattr(compiled, "inductor", lambda graph, example: graph)
    found = [run(kind, compile) for compile in (False, True)]
    assert_same(*found, 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_inductor_compiles_a_minibatch(kind: type[PPO]) -> None:
    assert_same(run(kind, False), run(kind, True), 2e-4)


def run(kind: type[PPO], compile: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    options = {"anneal_lr": True, "normalize_observations": True, "scale_rewards": True, "value_clip_range": 0.2}
    algorithm = kind(hidden_sizes=[8], compile=compile, **options, **COEFFICIENTS[kind])
    data = make_rollouts("Pendulum-v1")
    fit(algorithm, data)
    assert algorithm._compile is compile  # nothing has made it give up
    return everything(algorithm, data)
