"""Training steps of TD3, DQN, PPO, A2C and TRPO beside Stable-Baselines3's, with the same networks, batches and noise.

pip install -e '.[peers]'
python -m benchmarks.studies.updates_against_sb3
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any
from unittest import mock

import gymnasium
import sb3_contrib
import stable_baselines3
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from stable_baselines3.common.logger import configure
from tensordict import TensorDict
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lit_mbrl.algorithms import A2C, DQN, PPO, TD3, TRPO
from lit_mbrl.callbacks import SoftTargetUpdate
from lit_mbrl.envs import EnvConfig, Spec, describe
from lit_mbrl.training import fast_path
from lit_mbrl.training.optim import clip_

SIZE, ROUNDS = 256, 40


def batch() -> TensorDict:
    """Made-up transitions of Pendulum's sizes."""
    return TensorDict(
        {
            "observation": torch.randn(SIZE, 3),
            "action": torch.rand(SIZE, 1) * 2 - 1,
            "next": {
                "observation": torch.randn(SIZE, 3),
                "reward": torch.randn(SIZE, 1) - 5,
                "terminated": torch.rand(SIZE, 1) < 0.1,
            },
        },
        [SIZE],
    )


def td3() -> None:
    """Critics, delayed policy and targets, on Pendulum's sizes."""
    torch.manual_seed(0)
    peer = stable_baselines3.TD3(
        "MlpPolicy",
        gymnasium.make("Pendulum-v1"),
        learning_rate=1e-3,
        policy_kwargs={"net_arch": [256, 256]},
        device="cpu",
    )
    peer.set_logger(configure(None, []))
    ours = TD3(actor_lr=1e-3, critic_lr=1e-3)
    ours.configure(Spec("made up", 3, 1))
    pairs: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for name in ("actor", "actor_target", "critic", "critic_target"):
        pairs[name] = list(getattr(ours, name).parameters()), list(getattr(peer, name).parameters())
    with torch.no_grad():
        torch._foreach_copy_(*(list(chain.from_iterable(side)) for side in zip(*pairs.values(), strict=True)))

    optimizers = [torch.optim.Adam(update.parameters(), lr=update.lr) for update in ours.update_list]
    follow = SoftTargetUpdate(tau=0.005, period=2)
    module = SimpleNamespace(targets=ours.targets, train_steps=0)
    follow.on_fit_start(None, module)
    for module.train_steps in range(1, ROUNDS + 1):
        frames = batch()
        following = frames["next"]
        sample = SimpleNamespace(
            observations=frames["observation"],
            actions=frames["action"],
            next_observations=following["observation"],
            dones=following["terminated"].float(),
            rewards=following["reward"],
            discounts=None,
        )
        peer.replay_buffer.sample = lambda *_, sample=sample, **__: sample
        noise = torch.get_rng_state()
        peer.train(gradient_steps=1, batch_size=SIZE)
        torch.set_rng_state(noise)
        for update, optimizer in zip(ours.update_list, optimizers, strict=True):
            if module.train_steps % update.every == 0:
                optimizer.zero_grad()
                update.loss(frames).backward(inputs=update.parameters())
                optimizer.step()
        follow.on_train_batch_end(None, module)
    for name, (mine, theirs) in pairs.items():
        difference = max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
        print(f"TD3, {name}: largest difference of a weight after {ROUNDS} rounds {difference:.1e}")


def dqn() -> None:
    """Values and their targets, on CartPole's sizes."""
    torch.manual_seed(0)
    peer = stable_baselines3.DQN(
        "MlpPolicy",
        gymnasium.make("CartPole-v1"),
        learning_rate=1e-3,
        gamma=0.9,
        max_grad_norm=10.0,
        policy_kwargs={"net_arch": [64, 64]},
        device="cpu",
    )
    peer.set_logger(configure(None, []))
    ours = DQN(hidden_sizes=[64, 64], lr=1e-3, gamma=0.9)
    ours.configure(Spec("made up", 4, 2, discrete=True))
    pairs = [
        (list(ours.critic.parameters()), list(peer.q_net.parameters())),
        (list(ours.critic_target.parameters()), list(peer.q_net_target.parameters())),
    ]
    with torch.no_grad():
        for mine, theirs in pairs:
            torch._foreach_copy_(mine, theirs)
    optimizer = torch.optim.Adam(ours.critic.parameters(), lr=1e-3)
    follow = SoftTargetUpdate(tau=1.0, period=10)
    module = SimpleNamespace(targets=ours.targets, train_steps=0)
    follow.on_fit_start(None, module)
    for module.train_steps in range(1, ROUNDS + 1):
        observation, following, reward = torch.randn(SIZE, 4), torch.randn(SIZE, 4), torch.randn(SIZE, 1) * 3
        action, terminated = torch.randint(2, (SIZE,)), torch.rand(SIZE, 1) < 0.1
        sample = SimpleNamespace(
            observations=observation,
            actions=action.unsqueeze(-1),
            next_observations=following,
            dones=terminated.float(),
            rewards=reward,
            discounts=None,
        )
        peer.replay_buffer.sample = lambda *_, sample=sample, **__: sample
        peer.train(gradient_steps=1, batch_size=SIZE)
        after = {"observation": following, "reward": reward, "terminated": terminated}
        frames = TensorDict({"observation": observation, "action": action, "next": after}, [SIZE])
        optimizer.zero_grad()
        ours.critic_loss(frames).backward()
        clip_([parameter.grad for parameter in ours.critic.parameters()], 10.0)
        optimizer.step()
        follow.on_train_batch_end(None, module)
        if module.train_steps % 10 == 0:
            peer.q_net_target.load_state_dict(peer.q_net.state_dict())
    for name, (mine, theirs) in zip(("critic", "critic_target"), pairs, strict=True):
        difference = max(float((a - b).detach().abs().max()) for a, b in zip(mine, theirs, strict=True))
        print(f"DQN, {name}: largest difference of a weight after {ROUNDS} rounds {difference:.1e}")


def same_networks(ours: Any, peer: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The weights of policy and value, which are the same in both from now on."""
    body, policy = peer.policy.mlp_extractor, peer.policy
    theirs = [*body.policy_net.parameters(), *policy.action_net.parameters()]
    theirs += [*body.value_net.parameters(), *policy.value_net.parameters()]
    if ours.spec.discrete:
        mine = [*ours.actor.parameters(), *ours.critic.parameters()]
    else:
        mine = [*ours.actor.mean.parameters(), *ours.critic.parameters(), ours.actor.log_std]
        theirs += [policy.log_std]
    with torch.no_grad():
        torch._foreach_copy_(mine, theirs)
    return mine, theirs


def ppo() -> None:
    """Minibatches of 64 made-up frames on HalfCheetah-v5's sizes, with SB3's own `train`."""
    torch.manual_seed(0)
    peer = stable_baselines3.PPO("MlpPolicy", gymnasium.make("HalfCheetah-v5"), 3e-4, n_epochs=1, device="cpu")
    peer.set_logger(configure(None, []))
    ours = PPO(hidden_sizes=[64, 64], lr=3e-4)
    ours.configure(describe(EnvConfig("HalfCheetah-v5")))
    mine, theirs = same_networks(ours, peer)
    (optimizer,), (update,) = ours.configure_optimizers(), ours.update_list
    for _ in range(ROUNDS):
        observation = torch.randn(64, 17)
        with torch.no_grad():
            action = ours.explore(observation, torch.zeros(64, 1, dtype=torch.bool))
            log_prob, _, value = ours.evaluate(observation, action)
        frames = {"observation": observation, "action": action, "value": value}
        frames |= {"log_prob": log_prob + 0.3 * torch.randn(64, 1), "advantage": 3 * torch.randn(64, 1)}
        sample = SimpleNamespace(
            observations=observation,
            actions=action,
            old_values=value[:, 0],
            old_log_prob=frames["log_prob"][:, 0],
            advantages=frames["advantage"][:, 0],
            returns=(value + frames["advantage"])[:, 0],
        )
        peer.rollout_buffer.get = lambda *_, sample=sample, **__: iter([sample])
        peer.train()
        optimizer.zero_grad()
        update.loss(TensorDict(frames, [64])).backward(inputs=update.parameters())
        clip_([parameter.grad for parameter in update.parameters()], ours.max_grad_norm)
        optimizer.step()
    difference = max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
    print(f"PPO: largest difference of a weight after {ROUNDS} minibatches {difference:.1e}")


def a2c() -> None:
    """Rollouts of 80 made-up frames on CartPole's and HalfCheetah-v5's sizes, with SB3's own `train`."""
    for env in ("CartPole-v1", "HalfCheetah-v5"):
        torch.manual_seed(0)
        peer = stable_baselines3.A2C("MlpPolicy", gymnasium.make(env), 7e-4, ent_coef=0.01, device="cpu")
        peer.set_logger(configure(None, []))
        ours = A2C(hidden_sizes=[64, 64], lr=7e-4, torch_rmsprop=True)
        spec = describe(EnvConfig(env))
        ours.configure(spec)
        mine, theirs = same_networks(ours, peer)
        (optimizer,), (update,) = ours.configure_optimizers(), ours.update_list
        for _ in range(ROUNDS):
            observation = torch.randn(80, spec.observation_dim)
            with torch.no_grad():
                action = ours.explore(observation, torch.zeros(80, 1, dtype=torch.bool))
                _, _, value = ours.evaluate(observation, action)
            frames = {"observation": observation, "action": action, "value": value}
            frames |= {"advantage": 3 * torch.randn(80, 1)}
            sample = SimpleNamespace(
                observations=observation,
                actions=action.unsqueeze(-1).float() if spec.discrete else action,
                advantages=frames["advantage"][:, 0],
                returns=(value + frames["advantage"])[:, 0],
            )
            peer.rollout_buffer.get = lambda *_, sample=sample, **__: iter([sample])
            peer.train()
            optimizer.zero_grad()
            update.loss(TensorDict(frames, [80])).backward(inputs=update.parameters())
            clip_([parameter.grad for parameter in update.parameters()], ours.max_grad_norm)
            optimizer.step()
        difference = max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
        print(f"A2C, {env}: largest difference of a weight after {ROUNDS} rollouts {difference:.1e}")


def trpo() -> None:
    """Rollouts of 2048 made-up frames on Pendulum's sizes, with SB3-contrib's own `train`.

    Its divergence is the mean over the action's dimensions, of which there is one here, where TRPO's is their sum, and
    KL(new, old), which has the same Hessian but other values in the line search: ours takes that one here. Its
    conjugate gradient starts from noise of 1e-4, which is taken out, and ours from 0. Its Adam has an epsilon of 1e-5.
    """
    torch.manual_seed(0)
    peer = sb3_contrib.TRPO("MlpPolicy", gymnasium.make("Pendulum-v1"), 1e-3, n_critic_updates=1, device="cpu")
    peer.set_logger(configure(None, []))
    ours = TRPO(hidden_sizes=[64, 64], value_lr=1e-3, cg_iterations=15)
    ours.configure(describe(EnvConfig("Pendulum-v1")))
    ours.note, ours.uses_fast_path = lambda *_: None, True
    mine, theirs = same_networks(ours, peer)
    (policy, value), steps = ours.configure_optimizers(), []

    def reversed_divergence(batch: TensorDict) -> Tensor:
        old, new = (
            Normal(mean, log_std.exp())
            for mean, log_std in (
                x.chunk(2, -1) for x in (batch["acted"], ours.actor.distribution(batch["observation"]))
            )
        )
        return kl_divergence(new, old).sum(-1).mean()

    policy_update, value_update = ours.update_list
    policy_update = replace(policy_update, divergence=reversed_divergence)
    value.param_groups[0]["eps"] = 1e-5
    for _ in range(ROUNDS):
        observation, before = torch.randn(2048, 3), [weight.detach().clone() for weight in theirs]
        with torch.no_grad():
            action = ours.explore(observation, torch.zeros(2048, 1, dtype=torch.bool))
            log_prob, _, values = ours.evaluate(observation, action)
            acted = ours.actor.distribution(observation)
        frames = {"observation": observation, "action": action, "value": values, "log_prob": log_prob, "acted": acted}
        frames |= {"advantage": action.sum(-1, keepdim=True) * observation[:, :1] + torch.randn(2048, 1)}
        sample = SimpleNamespace(
            observations=observation,
            actions=action,
            old_values=values[:, 0],
            old_log_prob=log_prob[:, 0],
            advantages=frames["advantage"][:, 0],
            returns=(values + frames["advantage"])[:, 0],
        )
        peer.rollout_buffer.get = lambda *_, sample=sample, **__: iter([sample])
        with mock.patch.object(torch, "randn_like", torch.zeros_like):
            peer.train()
        batch = TensorDict(frames, [2048])
        with mock.patch.object(fast_path, "count_steps"), mock.patch.object(TRPO, "trainer", None):
            ours.gradient_step(policy_update, LightningOptimizer(policy), batch, {})
        value.zero_grad()
        value_update.loss(batch).backward(inputs=value_update.parameters())
        value.step()
        steps.append(max(float((a - b).abs().max()) for a, b in zip(theirs, before, strict=True)))
    difference = max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
    print(
        f"TRPO: largest difference of a weight after {ROUNDS} rollouts {difference:.1e} (steps: up to {max(steps):.1e})"
    )


if __name__ == "__main__":
    td3()
    dqn()
    ppo()
    a2c()
    trpo()
