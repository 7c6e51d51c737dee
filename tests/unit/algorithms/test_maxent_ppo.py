"""PPO's objectives, with and without entropy, against the report's equations in plain torch: values and gradients."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl import algorithms
from lit_mbrl.algorithms import PPO, EntropyBonusPPO, FullMaxEntPPO, MaxEntBonusPPO, MaxEntPPO
from lit_mbrl.algorithms.maxent_ppo import Standardization
from lit_mbrl.app.cli import CONF
from lit_mbrl.app.defaults import read_config
from lit_mbrl.envs import Spec
from lit_mbrl.losses import clip_objective
from lit_mbrl.networks import ImpalaEncoder
from lit_mbrl.utils.errors import OptionError

O, A, T, N = 3, 4, 6, 3  # noqa: E741
BETA, BONUS, ALPHA = 0.25, 0.0625, 0.75  # beta and bonus are float32 buffers: numbers that have no rounding there
EPSILON, GAMMA, LMBDA = 0.2, 0.9, 0.8
COEFFICIENTS: dict[type[PPO], dict[str, float]] = {
    PPO: {},
    EntropyBonusPPO: {"bonus_coeff": BONUS},
    MaxEntPPO: {"entropy_coeff": BETA},
    MaxEntBonusPPO: {"entropy_coeff": BETA, "bonus_coeff": BONUS},
    FullMaxEntPPO: {"entropy_coeff": BETA},
}
KINDS = list(COEFFICIENTS)
WITH_ENTROPY = [MaxEntPPO, MaxEntBonusPPO, FullMaxEntPPO]
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}


def make(kind: type[PPO], discrete: bool = True, **options: Any) -> PPO:
    options = {"gamma": GAMMA, "lmbda": LMBDA, "value_coeff": ALPHA, "clip_range": EPSILON} | options
    algorithm = kind(hidden_sizes=[8], **COEFFICIENTS[kind], **options)
    algorithm.configure(Spec("made up", O, A, discrete=discrete))
    return move(algorithm.double(), 0.7, 0.0)


def move(algorithm: PPO, noise: float, keep: float = 1.0) -> PPO:
    """Random weights, or others near those that it has."""
    with torch.no_grad():
        for parameter in algorithm.parameters():
            parameter.mul_(keep).add_(torch.randn_like(parameter), alpha=noise)
    return algorithm


def make_frames(discrete: bool = True) -> TensorDict:
    """A raw rollout `[N, T]` with terminated, truncated and running episodes."""
    observation = torch.randn(N, T, O, dtype=torch.float64)
    terminated, truncated = torch.zeros(2, N, T, 1, dtype=torch.bool)
    terminated[0, 1] = truncated[1, 3] = terminated[2, 0] = True
    following = torch.cat([observation[:, 1:], torch.randn(N, 1, O, dtype=torch.float64)], 1)
    done = terminated | truncated
    following = torch.where(done, torch.randn_like(following), following)  # an episode's last is no first
    action = torch.randint(A, (N, T)) if discrete else torch.randn(N, T, A, dtype=torch.float64)
    reward = 3 * torch.randn(N, T, 1, dtype=torch.float64)  # returns on both sides of the values
    after = {"observation": following, "reward": reward, "terminated": terminated, "truncated": truncated}
    return TensorDict({"observation": observation, "action": action, "next": after}, [N, T])


# ---------------------------------------------------------------------- the report in plain torch
def log_prob_and_entropy(algorithm: PPO, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Scalars of one state."""
    if action.is_floating_point():
        std = algorithm.actor.log_std.exp()
        mean = algorithm.actor.mean(observation)
        density = (-((action - mean) ** 2) / (2 * std**2)).exp() / (std * math.sqrt(2 * math.pi))
        return density.log().sum(), (0.5 * (2 * math.pi * math.e * std**2).log()).sum()
    weights = algorithm.actor.logits(observation).exp()
    probabilities = weights / weights.sum()
    return probabilities[action].log(), -(probabilities * probabilities.log()).sum()


def reference(algorithm: PPO, acted: PPO, frames: TensorDict, index: Tensor, **options: Any) -> tuple[Tensor, set[str]]:
    """Minus `L^MAX` (or `L^REG`, or PPO's objective) on some frames of a rollout, and the cases that occur.

    Section 3's sums, term by term; `acted` has the parameters theta_old.
    """
    kind = type(algorithm)
    observation, action, following = frames["observation"], frames["action"], frames["next"]

    @functools.cache
    def delta(n: int, i: int, paid: bool) -> Tensor:
        _, entropy = log_prob_and_entropy(algorithm, observation[n, i], action[n, i])
        value = acted.critic(observation[n, i])[0].detach()
        next_value = acted.critic(following["observation"][n, i])[0].detach()
        reward = following["reward"][n, i, 0] + (BETA * entropy if paid else 0.0)
        return reward + (0.0 if following["terminated"][n, i] else GAMMA * next_value) - value

    def advantage(n: int, t: int, beta: bool) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i in range(t, T):
            paid = beta and kind in WITH_ENTROPY and (i == t or kind is FullMaxEntPPO)
            total = total + (GAMMA * LMBDA) ** (i - t) * delta(n, i, paid)
            if following["terminated"][n, i] or following["truncated"][n, i]:
                break
        return total

    steps = [(int(i) % N, int(i) // N) for i in index]
    plain = torch.stack([advantage(n, t, False) for n, t in steps])
    estimates = torch.stack([advantage(n, t, True) for n, t in steps])
    weights = {
        None: estimates,
        "before": (plain - plain.mean()) / (plain.std() + 1e-8) + (estimates - plain),
        "after_constant": (estimates - estimates.mean().detach()) / (estimates.std().detach() + 1e-8),
        "after_differentiated": (estimates - estimates.mean()) / (estimates.std() + 1e-8),
    }[options["standardization"]]
    loss, cases = torch.zeros((), dtype=torch.float64), set()
    for (n, t), estimate, weight in zip(steps, estimates, weights, strict=True):
        log_prob, entropy = log_prob_and_entropy(algorithm, observation[n, t], action[n, t])
        old_log_prob, _ = log_prob_and_entropy(acted, observation[n, t], action[n, t])
        ratio = (log_prob - old_log_prob.detach()).exp()
        cut = ratio.clamp(1 - EPSILON, 1 + EPSILON)
        objective = torch.minimum(ratio * weight, cut * weight)
        old_value, value = acted.critic(observation[n, t])[0].detach(), algorithm.critic(observation[n, t])[0]
        returns = estimate + old_value
        returns = returns if options["differentiate_returns"] else returns.detach()
        error = (value - returns) ** 2
        if (reach := options["value_clip_range"]) is not None:
            near = old_value + (value - old_value).clamp(-reach, reach)
            error = torch.maximum(error, (near - returns) ** 2)
            cases.add("value cut" if (near != value and error == (near - returns) ** 2) else "value")
        cases.add("ratio cut" if objective != ratio * weight else "ratio")
        bonus = BONUS * entropy if kind in (EntropyBonusPPO, MaxEntBonusPPO) else 0.0
        loss = loss - (objective - ALPHA * error + bonus) / len(steps)
    return loss, cases


def gradients(loss: Tensor, algorithm: PPO) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(algorithm.parameters()), materialize_grads=True)
    return {name: gradient for (name, _), gradient in zip(algorithm.named_parameters(), found, strict=True)}


CASES = [
    (kind, standardization, differentiate)
    for kind in KINDS
    for standardization, differentiate in itertools.product([None, *get_args(Standardization)], [True, False])
    if kind in WITH_ENTROPY or (standardization in (None, "before") and not differentiate)
]


@pytest.mark.parametrize("value_clip_range", [None, 0.1])
@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
@pytest.mark.parametrize(("kind", "standardization", "differentiate"), CASES)
def test_objective_and_gradient_are_the_report_s(
    kind: type[PPO], standardization: str | None, differentiate: bool, discrete: bool, value_clip_range: float | None
) -> None:
    options: dict[str, Any] = {"value_clip_range": value_clip_range}
    own = {"differentiate_returns": differentiate}
    if standardization is not None:
        own |= {"standardization": standardization}
    own = own if kind in WITH_ENTROPY else {}
    acted = make(kind, discrete, standardize_advantages=standardization is not None, **options, **own)
    frames = make_frames(discrete)
    rollout = acted.prepare_rollout(frames)
    algorithm = move(copy.deepcopy(acted), 0.2)
    index = torch.randperm(T * N)[:13]
    found = algorithm.loss(algorithm.minibatch(rollout, index))
    options |= {"standardization": standardization, "differentiate_returns": differentiate}
    expected, cases = reference(algorithm, acted, frames, index, **options)
    assert cases == {"ratio", "ratio cut"} | ({"value", "value cut"} if value_clip_range else set())
    torch.testing.assert_close(found, expected, **EXACT)
    ours, theirs = gradients(found, algorithm), gradients(expected, algorithm)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=name, **EXACT)


# ---------------------------------------------------------------------- where entropy's gradient comes from
def at_equal_policies(algorithm: PPO) -> TensorDict:
    """A whole rollout by the policy as it is."""
    return algorithm.minibatch(algorithm.prepare_rollout(make_frames()), torch.arange(T * N))


def actor_gradient(algorithm: PPO, total: Tensor) -> Tensor:
    found = torch.autograd.grad(total, list(algorithm.actor.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def entropies(algorithm: PPO, batch: TensorDict) -> Tensor:
    """`E_t` of a minibatch of a maximum-entropy agent."""
    return algorithm.paid_entropy(batch, algorithm.actor.entropy(algorithm.encoder(batch["observation"])))


def advantage_gradient(algorithm: PPO, batch: TensorDict) -> Tensor:
    """The policy's gradient of `<r A(beta)>` at `r = 1` through `A(beta)` alone."""
    log_prob, entropy, _ = algorithm.evaluate(batch["observation"], batch["action"])
    advantage, _ = algorithm.advantages_and_returns(batch, entropy)
    ratio_is_1 = log_prob.detach(), log_prob.detach()
    return actor_gradient(algorithm, clip_objective(*ratio_is_1, advantage, EPSILON).mean())


@pytest.mark.parametrize("kind", WITH_ENTROPY)
def test_standardisation_scales_the_advantage_s_own_gradient(kind: type[PPO]) -> None:
    """At equal policies `beta <grad E>`: as it is, over the standard deviation of A(beta), or not at all."""
    algorithm = make(kind)
    batch = at_equal_policies(algorithm)
    expected = BETA * actor_gradient(algorithm, entropies(algorithm, batch).mean())
    assert expected.norm() > 1e-2
    deviation = (batch["advantage"] + BETA * entropies(algorithm, batch)).std().detach()
    for standardization, scale in (("before", 1.0), ("after_constant", 1 / deviation), ("after_differentiated", 0.0)):
        algorithm.standardization = standardization
        torch.testing.assert_close(advantage_gradient(algorithm, batch), scale * expected, rtol=1e-6, atol=1e-12)
    algorithm.standardize_advantages = False
    torch.testing.assert_close(advantage_gradient(algorithm, batch), expected, **EXACT)


@pytest.mark.parametrize("value_clip_range", [None, 0.1])
@pytest.mark.parametrize("kind", WITH_ENTROPY)
def test_the_return_s_gradient_at_equal_policies(kind: type[PPO], value_clip_range: float | None) -> None:
    """`-2 alpha beta <A(beta) grad E>` of the objective, the opposite of it in the loss."""
    algorithm = make(kind, value_clip_range=value_clip_range)
    batch = at_equal_policies(algorithm)
    with_it = gradients(algorithm.loss(batch), algorithm)
    algorithm.differentiate_returns = False
    without = gradients(algorithm.loss(batch), algorithm)
    entropy = entropies(algorithm, batch)
    advantage = (batch["advantage"] + BETA * entropy).detach()
    expected = 2 * ALPHA * BETA * actor_gradient(algorithm, (advantage * entropy).mean())
    assert expected.norm() > 1e-2
    found = torch.cat([(with_it[name] - without[name]).flatten() for name in with_it if name.startswith("actor")])
    torch.testing.assert_close(found, expected, **EXACT)
    for name, gradient in with_it.items():
        assert name.startswith("actor") or torch.equal(gradient, without[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_return_leaves_the_value_s_error_to_the_value(kind: type[PPO]) -> None:
    own = {"differentiate_returns": False} if kind in WITH_ENTROPY else {}
    algorithm = make(kind, **own)
    batch = move(algorithm, 0.1).minibatch(algorithm.prepare_rollout(make_frames()), torch.arange(T * N))
    move(algorithm, 0.1)
    found = gradients(algorithm.loss(batch), algorithm)
    algorithm.value_coeff = 0.0
    for name, gradient in gradients(algorithm.loss(batch), algorithm).items():
        if name.startswith("actor"):
            torch.testing.assert_close(gradient, found[name], **EXACT)
        else:
            assert gradient.abs().max() == 0 and found[name].abs().max() > 0


# ---------------------------------------------------------------------- configs and options
def configs() -> dict[str, dict[str, Any]]:
    """Every shipped config's model whose class has entropy in its advantage."""
    names = {kind.__name__ for kind in WITH_ENTROPY}
    models = {}
    for path in sorted(Path(CONF).rglob("*.yaml")):
        model = read_config(path).get("model")
        if isinstance(model, dict) and model.get("class_path") in names:
            models[str(path.relative_to(CONF))] = model
    return models


def test_all_configs_are_looked_at() -> None:
    assert len(configs()) == 7 and {model["class_path"] for model in configs().values()} == {
        kind.__name__ for kind in WITH_ENTROPY
    }


@pytest.mark.parametrize("name", configs())
def test_every_config_has_a_gradient_through_the_advantage(name: str) -> None:
    """At ratio 1, where the report's objective differs from PPO's by it alone."""
    model = configs()[name]
    options = dict(model["init_args"])
    pixels = "encoder" in options
    if pixels:
        options["encoder"] = ImpalaEncoder(**options["encoder"])
    algorithm = getattr(algorithms, model["class_path"])(**options)
    shape = (3, 64, 64) if pixels else (4,)
    algorithm.configure(Spec("made up", math.prod(shape), 15, discrete=True, observation_shape=shape))
    torch.nn.init.normal_(algorithm.actor.logits[-1].weight)  # entropy has no slope where all actions are alike
    observation = torch.randint(0, 256, (T, N, *shape), dtype=torch.uint8) if pixels else torch.randn(T, N, *shape)
    rollout = {"observation": observation, "action": torch.randint(15, (T, N)), "done": torch.rand(T, N, 1) < 0.3}
    rollout |= {"advantage": torch.randn(T, N, 1), "value": torch.randn(T, N, 1)}
    batch = algorithm.minibatch(TensorDict(rollout, [T, N]), torch.arange(T * N))
    bonus = algorithm.entropy_coeff * actor_gradient(algorithm, entropies(algorithm, batch).mean())
    assert bonus.norm() > 1e-4
    assert advantage_gradient(algorithm, batch).norm() > 0.1 * bonus.norm()


def test_an_unknown_standardisation_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--model.standardization=.*: expected before, after_constant"):
        MaxEntPPO(standardization="after")  # type: ignore[arg-type]
