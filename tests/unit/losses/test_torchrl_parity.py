"""Our objectives against TorchRL's on the same networks and the same noise, in float64.

Conventions that differ, and are undone here:
- TorchRL sums the critic loss over the ensemble and averages over the batch; ours is unreduced.
- TorchRL drops the trailing 1 of log-probabilities and values.
- TorchRL subtracts the entropy inside the minimum over critics, we outside: the same number.
- TorchRL's temperature loss has `log_alpha` where the paper (SVG eq. 8) has `alpha`.
- TorchRL draws noise with `torch.normal`: drawing ours from the same seed gives the same numbers.
"""

from __future__ import annotations

import copy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import DDPGLoss, SACLoss, SoftUpdate, TD3Loss

from lit_mbrl import losses
from lit_mbrl.networks import MLP, DeterministicActor, QEnsemble, TanhGaussianActor

O, A, B, ALPHA = 3, 2, 16, 0.2  # noqa: E741
GAMMA, TARGET_ENTROPY = 0.9375, -1.75  # TorchRL keeps them in float32: numbers that float32 holds exactly
CLOSE = {"atol": 1e-10, "rtol": 1e-10}


class Member(nn.Module):
    """One critic of ours, called as TorchRL calls critics."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([observation, action], -1))


class Scale(nn.Module):
    """Our actor's (mean, log_std) as TorchRL's (loc, scale)."""

    def __init__(self, actor: TanhGaussianActor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(observation)
        return mean, log_std.exp()


@pytest.fixture
def batch() -> TensorDict:
    terminated = torch.arange(B).unsqueeze(-1) % 4 == 0
    truncated = torch.arange(B).unsqueeze(-1) % 4 == 1
    return TensorDict(
        {
            "observation": torch.randn(B, O, dtype=torch.float64),
            "action": torch.rand(B, A, dtype=torch.float64) * 2 - 1,
            "next": {
                "observation": torch.randn(B, O, dtype=torch.float64),
                "reward": torch.randn(B, 1, dtype=torch.float64),
                "terminated": terminated,
                "truncated": truncated,
                "done": terminated | truncated,
            },
        },
        [B],
    )


def critics(num: int) -> tuple[QEnsemble, QEnsemble]:
    """Online and target critics that differ."""
    return QEnsemble(O, A, [8], num).double(), QEnsemble(O, A, [8], num).double()


def operators(critic: QEnsemble) -> list[ValueOperator]:
    return [ValueOperator(Member(copy.deepcopy(m)), in_keys=["observation", "action"]) for m in critic.members]


def set_target(parameters: TensorDict, critic: QEnsemble) -> None:
    """Writes our target critics into TorchRL's (stacked over members where it stacks)."""
    stacked = [TensorDict.from_module(operator).data for operator in operators(critic)]
    source = torch.stack(stacked) if parameters.batch_size else stacked[0]
    parameters.data.copy_(source)


def seeded_noise(seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.normal(torch.zeros(B, A, dtype=torch.float64), torch.ones(B, A, dtype=torch.float64))


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters())))


def test_sac(batch: TensorDict) -> None:
    actor = TanhGaussianActor(O, A, [8], log_std_bounds=(-3.0, 0.5)).double()
    critic, critic_target = critics(2)
    policy = ProbabilisticActor(
        TensorDictModule(Scale(actor), in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    theirs = SACLoss(
        policy,
        operators(critic),
        num_qvalue_nets=2,
        loss_function="l2",
        alpha_init=ALPHA,
        target_entropy=TARGET_ENTROPY,
    ).double()
    theirs.make_value_estimator(gamma=GAMMA)
    SoftUpdate(theirs, tau=0.005)  # never stepped: without one TorchRL warns
    set_target(theirs.target_qvalue_network_params, critic_target)

    # Critic: target and loss.
    torch.manual_seed(11)
    their_critic_loss, _ = theirs.qvalue_v2_loss(batch.clone())
    torch.manual_seed(11)
    their_target = theirs._compute_target_v2(batch.clone()).unsqueeze(-1)
    alpha = theirs.log_alpha.detach().exp()
    x = batch["next", "observation"]
    action, log_prob = actor.sample(x, seeded_noise(11))
    next_value = losses.soft_value(critic_target(x, action), log_prob, alpha)
    target = losses.soft_q_target(batch["next", "reward"], batch["next", "terminated"], next_value, GAMMA)
    torch.testing.assert_close(target, their_target, **CLOSE)
    loss = losses.q_loss(critic(batch["observation"], batch["action"]), target).sum(0).mean()
    torch.testing.assert_close(loss, their_critic_loss, **CLOSE)

    # Actor: loss and gradient.
    torch.manual_seed(12)
    their_actor_loss, metadata = theirs.actor_loss(batch.clone())
    action, log_prob = actor.sample(batch["observation"], seeded_noise(12))
    loss = losses.soft_policy_loss(critic(batch["observation"], action), log_prob, alpha).mean()
    torch.testing.assert_close(loss, their_actor_loss, **CLOSE)
    their_gradients = torch.autograd.grad(
        their_actor_loss, [p for p in theirs.actor_network_params.values(True, True) if p.requires_grad]
    )
    ours = {tuple(g.shape): g for g in gradients(loss, actor)}  # every parameter of this net has its own shape
    assert len(ours) == len(their_gradients) == 4
    for gradient in their_gradients:
        torch.testing.assert_close(gradient, ours[tuple(gradient.shape)], atol=1e-8, rtol=1e-8)

    # Temperature: alpha for log_alpha, in the loss and in the gradient with respect to log_alpha.
    their_alpha_loss = theirs.alpha_loss(metadata["log_prob"]).mean()
    (their_gradient,) = torch.autograd.grad(their_alpha_loss, theirs.log_alpha)
    log_alpha = theirs.log_alpha.detach().clone().requires_grad_()
    loss = losses.temperature_loss(log_alpha.exp(), log_prob, TARGET_ENTROPY).mean()
    torch.testing.assert_close(loss, their_alpha_loss.detach() / log_alpha * log_alpha.exp(), **CLOSE)
    (gradient,) = torch.autograd.grad(loss, log_alpha)
    torch.testing.assert_close(gradient, their_gradient * alpha, **CLOSE)


def test_ddpg(batch: TensorDict) -> None:
    actor, actor_target = DeterministicActor(O, A, [8]).double(), DeterministicActor(O, A, [8]).double()
    critic, critic_target = critics(1)
    policy = TensorDictModule(copy.deepcopy(actor), in_keys=["observation"], out_keys=["action"])
    theirs = DDPGLoss(policy, operators(critic)[0], loss_function="l2", delay_actor=True)
    theirs.make_value_estimator(gamma=GAMMA)
    SoftUpdate(theirs, tau=0.005)  # never stepped: without one TorchRL warns
    set_target(theirs.target_value_network_params, critic_target)
    target_policy = TensorDictModule(actor_target, in_keys=["observation"], out_keys=["action"])
    theirs.target_actor_network_params.data.copy_(TensorDict.from_module(target_policy).data)
    their_loss, metadata = theirs.loss_value(batch.clone())
    x = batch["next", "observation"]
    next_q = critic_target(x, actor_target(x))[0]
    target = losses.td_target(batch["next", "reward"], batch["next", "terminated"], next_q, GAMMA)
    torch.testing.assert_close(target, metadata["target_value"].unsqueeze(-1), **CLOSE)
    loss = losses.q_loss(critic(batch["observation"], batch["action"]), target).sum(0).mean()
    torch.testing.assert_close(loss, their_loss, **CLOSE)
    their_actor_loss, _ = theirs.loss_actor(batch.clone())
    loss = losses.dpg_loss(critic(batch["observation"], actor(batch["observation"]))[0]).mean()
    torch.testing.assert_close(loss, their_actor_loss, **CLOSE)


def test_td3(batch: TensorDict) -> None:
    actor, actor_target = DeterministicActor(O, A, [8]).double(), DeterministicActor(O, A, [8]).double()
    critic, critic_target = critics(2)
    policy = TensorDictModule(copy.deepcopy(actor), in_keys=["observation"], out_keys=["action"])
    sigma, clip = 0.4, 0.5
    theirs = TD3Loss(
        policy, operators(critic), bounds=(-1.0, 1.0), policy_noise=sigma, noise_clip=clip, loss_function="l2"
    )
    theirs.make_value_estimator(gamma=GAMMA)
    SoftUpdate(theirs, tau=0.005)  # never stepped: without one TorchRL warns
    set_target(theirs.target_qvalue_network_params, critic_target)
    target_policy = TensorDictModule(actor_target, in_keys=["observation"], out_keys=["action"])
    theirs.target_actor_network_params.data.copy_(TensorDict.from_module(target_policy).data)
    torch.manual_seed(13)
    their_loss, metadata = theirs.value_loss(batch.clone())
    torch.manual_seed(13)
    noise = sigma * torch.randn_like(batch["action"])
    assert (noise.abs() > clip).any()  # the clip of the noise is at work
    x = batch["next", "observation"]
    next_q = critic_target(x, losses.smoothed_action(actor_target(x), noise, clip)).amin(0)
    target = losses.td_target(batch["next", "reward"], batch["next", "terminated"], next_q, GAMMA)
    torch.testing.assert_close(target, metadata["target_value"].unsqueeze(-1), **CLOSE)
    loss = losses.q_loss(critic(batch["observation"], batch["action"]), target).sum(0).mean()
    torch.testing.assert_close(loss, their_loss, **CLOSE)
    their_actor_loss, _ = theirs.actor_loss(batch.clone())
    loss = losses.dpg_loss(critic(batch["observation"], actor(batch["observation"]))[0]).mean()
    torch.testing.assert_close(loss, their_actor_loss, **CLOSE)


def test_networks_of_this_file_are_ours() -> None:
    """The wrapped member computes what the ensemble computes."""
    critic = QEnsemble(O, A, [8], 2)
    x, u = torch.randn(B, O), torch.randn(B, A)
    assert isinstance(critic.members[0], MLP)
    assert torch.equal(torch.stack([Member(m)(x, u) for m in critic.members]), critic(x, u))
