"""The Dreamers: which loss reaches what, what belongs to which observation, and what acting remembers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from lit_mbrl.algorithms import Dreamer, MaxEntDreamer, RevisedDreamer
from lit_mbrl.losses import standard_normal_kl
from lit_mbrl.models import Latent, TimeOrder
from lit_mbrl.networks import DeterministicLatentActor, DreamerActor
from lit_mbrl.training.optim import Adam
from lit_mbrl.utils.errors import OptionError
from tests.helpers.latents import DREAMERS, A, build, sequences

MODEL = {"encoder", "decoder", "rssm", "reward_head"}
BEHAVIOUR = {"rssm", "reward_head"}
ENDS = {"termination_head"}
AGENT = {"actor": BEHAVIOUR | {"actor", "critic"}, "critic": {"critic"}}
GREEDY = {
    "density": {"density"},
    "greedy_actor": BEHAVIOUR | {"greedy_actor", "greedy_critic"},
    "greedy_critic": {"greedy_critic"},
}
ENTROPY = {"density_target"}

# What each loss depends on differentiably. `Algorithm.gradient_step` then trains the update's own parameters only.
REACHES = {
    "dreamer": {"model": MODEL, **AGENT},
    "revised": {"model": MODEL | ENDS, **{k: v | ENDS if k == "actor" else v for k, v in AGENT.items()}},
    "exploration": {"model": MODEL, **AGENT, **GREEDY},
    "maxent": {
        "model": MODEL | ENDS,
        **{k: v | ENDS if k.endswith("actor") else v for k, v in (AGENT | GREEDY).items()},
    },
}


def part(name: str) -> str:
    first, second, *_ = name.split(".")
    return second if first == "world_model" else first


@pytest.mark.parametrize("name", DREAMERS)
def test_losses_reach_what_the_papers_say(name: str) -> None:
    algorithm, batch, found = build(DREAMERS[name]), sequences(), {}
    given: dict[str, Any] = {}
    for update in algorithm.update_list:
        algorithm.zero_grad(set_to_none=True)
        update.compute_loss(batch, given).backward()
        found[update.name] = {
            part(name) for name, p in algorithm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
        }
    assert found == REACHES[name]


@pytest.mark.parametrize("name", DREAMERS)
def test_an_update_moves_its_own_parameters_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, batch = build(DREAMERS[name]), sequences()
    monkeypatch.setattr(type(algorithm), "train_steps", 1)
    monkeypatch.setattr(algorithm, "manual_backward", lambda loss, **kwargs: loss.backward(**kwargs))
    given: dict[str, Any] = {}
    for update, optimizer in zip(algorithm.update_list, algorithm.configure_optimizers(), strict=True):
        before = {key: p.clone() for key, p in algorithm.named_parameters()}
        plain = SimpleNamespace(optimizer=optimizer, step=optimizer.step)  # in the place of Lightning's
        algorithm.gradient_step(update, plain, batch, given)
        own = {id(p) for p in update.parameters()}
        moved = {key for key, p in algorithm.named_parameters() if not torch.equal(p, before[key])}
        assert moved and moved <= {key for key, p in algorithm.named_parameters() if id(p) in own}, update.name


def test_the_optimisers_are_adam_with_tensorflow_s_epsilon() -> None:
    optimizers = build(Dreamer).configure_optimizers()
    assert [type(o) for o in optimizers] == [Adam] * 3
    assert [o.param_groups[0]["eps"] for o in optimizers] == [1e-7] * 3
    assert [o.param_groups[0]["lr"] for o in optimizers] == [6e-4, 8e-5, 8e-5]


# ---------------------------------------------------------------------- time
def counting(batch: int, steps: int) -> TensorDict:
    """A counter that actions of +-1 move: observation and reward at t are the count at t, the action led there."""
    frames = sequences(batch, steps, (1,), ended=False)
    action = torch.where(torch.rand(batch, steps, 1) < 0.5, -1.0, 1.0)
    action[:, 0] = 0.0
    count = action.cumsum(1) / 3.0
    frames["action"] = torch.cat([action, torch.rand_like(action)], -1)
    frames["observation"], frames["reward"] = count, count.clone()
    return frames


@pytest.mark.parametrize("time_order", get_args(TimeOrder))
def test_state_t_predicts_the_reward_of_observation_t_and_imagination_goes_on_from_there(time_order: TimeOrder) -> None:
    """Errors a step early or late would be at least 1/9, the square of the counter's step."""
    options = {"time_order": time_order, "deter": 16, "hidden": 16, "units": 16, "free_nats": 0.0, "kl_scale": 0.1}
    algorithm = build(Dreamer, (1,), **options, model_lr=5e-3)
    optimizer = torch.optim.Adam(algorithm.world_model.parameters(), lr=5e-3)
    for step in range(250):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 250)
        optimizer.zero_grad()
        algorithm.model_loss(counting(16, 6))[0].backward()
        optimizer.step()
    frames, model = counting(64, 6), algorithm.world_model
    first = model.rssm.first
    latent = model.observe(model.encode(frames["observation"]), frames["action"]).latent
    assert (model.reward(latent.feature) - frames["reward"][:, first:]).square().mean() < 0.03
    state = Latent(latent.deter[:, 2 - first], latent.stoch[:, 2 - first])
    for t in (3, 4, 5):  # the action at t leads to observation t
        state = model.img_step(state, frames["action"][:, t])
        assert (model.reward(state.feature) - frames["reward"][:, t]).square().mean() < 0.06, t


# ---------------------------------------------------------------------- losses
@pytest.mark.parametrize("name", DREAMERS)
def test_frames_that_fill_up_a_sequence_do_not_count(name: str) -> None:
    algorithm, batch = build(DREAMERS[name]), sequences()
    batch["mask"][:, 3:] = False

    def losses() -> list[float]:
        torch.manual_seed(0)
        given: dict[str, Any] = {}
        return [update.compute_loss(batch, given).item() for update in algorithm.update_list]

    before = losses()
    for key in ("observation", "action", "reward"):
        batch[key][:, 3:] += 1.0
    assert losses() == before
    batch["observation"][:, 2] += 1.0
    assert losses()[0] != before[0]


def test_nothing_is_imagined_from_a_state_in_which_the_episode_has_ended() -> None:
    algorithm, batch = build(RevisedDreamer), sequences(2, 4)
    _, start_states = algorithm.model_loss(batch)
    assert start_states.counts.flatten().tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    algorithm = build(Dreamer)  # without a termination model it does not know such states
    _, start_states = algorithm.model_loss(batch)
    assert start_states.counts.flatten().tolist() == [1] * 8


def test_revised_divergence_is_that_of_section_4_2() -> None:
    algorithm, batch = build(RevisedDreamer, free_nats=0.0), sequences()
    model = algorithm.world_model
    observed = model.observe(model.encode(batch["observation"]), batch["action"])
    p, q = Normal(observed.mean, observed.std), Normal(observed.prior_mean, observed.prior_std)
    kl = torch.distributions.kl_divergence
    both = (kl(p, q) + kl(q, p)).sum(-1).mean()
    expected = 0.1 * standard_normal_kl(observed.mean, observed.std).mean() + 0.1 * both
    torch.testing.assert_close(algorithm.kl_loss(observed, torch.mean), expected)
    assert algorithm.world_model.decode_from_stoch and algorithm.time_order == "observe_first"


def test_dreamer_learns_from_the_returns_of_all_states_and_revised_from_the_first() -> None:
    batch = sequences()
    for cls, inputs in ((Dreamer, (15, 2, 10)), (RevisedDreamer, (15, 1, 10 + A))):
        algorithm = build(cls)
        _, start_states = algorithm.model_loss(batch)
        imagined = algorithm.imagine(algorithm.actor, start_states)
        imagined_returns = algorithm.compute_returns(imagined, algorithm.actor, algorithm.critic, start_states.counts)
        assert imagined_returns.inputs.shape == inputs and imagined_returns.returns.shape == (15, inputs[1], 1)


def test_revised_return_by_hand() -> None:
    """`Q(s_t, a_t)` holds `r(s_{t+1})`, and the end in `s_{t+1}` cuts what follows it."""
    algorithm = build(RevisedDreamer)
    _, start_states = algorithm.model_loss(sequences())
    imagined = algorithm.imagine(algorithm.actor, start_states)
    seed = torch.random.get_rng_state()
    imagined_returns = algorithm.compute_returns(imagined, algorithm.actor, algorithm.critic, start_states.counts)
    torch.random.set_rng_state(seed)
    last = algorithm.actor.action(imagined.feature[:, 3], torch.randn(15, A))
    model, states = algorithm.world_model, imagined.feature
    following = [*imagined.action.unbind(1)[1:], last]
    values = [algorithm.critic(torch.cat([states[:, t + 1], following[t]], -1)) for t in range(3)]
    expected = values[2]
    for t in (2, 1, 0):
        ends = model.termination(states[:, t + 1]).sigmoid()
        expected = model.reward(states[:, t + 1]) + 0.99 * (1 - ends) * (0.05 * values[t] + 0.95 * expected)
    torch.testing.assert_close(imagined_returns.returns[:, 0], expected)
    torch.testing.assert_close(imagined_returns.inputs[:, 0], torch.cat([states[:, 0], imagined.action[:, 0]], -1))


def test_dreamer_s_weights_are_the_discounts_before_each_state() -> None:
    algorithm = build(Dreamer, termination=True)
    _, start_states = algorithm.model_loss(sequences(ended=False))
    imagined = algorithm.imagine(algorithm.actor, start_states)
    imagined_returns = algorithm.compute_returns(imagined, algorithm.actor, algorithm.critic, start_states.counts)
    ends = algorithm.world_model.termination_prob(imagined.feature[:, 1])
    expected = torch.stack([torch.ones_like(ends), 0.99 * (1 - ends)], 1)
    torch.testing.assert_close(imagined_returns.weight, expected)
    assert not imagined_returns.weight.requires_grad


def test_entropy_s_gradient_is_that_of_finite_differences() -> None:
    algorithm = build(MaxEntDreamer).double()
    batch = sequences().apply(lambda x: x.double() if x.is_floating_point() else x)
    _, start_states = algorithm.model_loss(batch)
    bias = algorithm.actor.net[-1].bias

    def entropy() -> torch.Tensor:
        torch.manual_seed(1)
        imagined = algorithm.imagine(algorithm.actor, start_states)
        return algorithm.entropy(
            imagined.feature, algorithm.world_model.termination_prob(imagined.feature[:, 1:])
        ).sum()

    # The actor sees states without gradient (Dreamer), so only what the first action does is a difference quotient.
    algorithm.horizon = 1
    (gradient,) = torch.autograd.grad(entropy(), bias)
    step = 1e-5
    for i in range(len(bias)):
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                bias[i] += sign * step
                values.append(entropy())
                bias[i] -= sign * step
        torch.testing.assert_close(gradient[i], (values[0] - values[1]) / (2 * step), rtol=1e-6, atol=1e-9)
    assert gradient.abs().min() > 1e-6


def test_entropy_weighs_the_objective_by_beta() -> None:
    algorithm, values = build(MaxEntDreamer), []
    batch = sequences()
    for beta in (0.0, 1.0, 2.0):
        algorithm.entropy_coeff.fill_(beta)
        torch.manual_seed(0)
        _, start_states = algorithm.model_loss(batch)
        values.append(algorithm.actor_loss(batch, start_states)[0])
    torch.testing.assert_close(values[0] - values[1], values[1] - values[2])
    assert values[0] != values[1]


# ---------------------------------------------------------------------- acting
def test_untrained_policy_is_wide_and_its_mean_is_bounded() -> None:
    actor = DreamerActor(4, 2, [8])
    for parameter in actor.net[-1].parameters():
        torch.nn.init.zeros_(parameter)
    _, std = actor(torch.randn(3, 4))
    torch.testing.assert_close(std, torch.full((3, 2), 5.0001))
    torch.nn.init.constant_(actor.net[-1].bias, 1e3)
    assert actor(torch.randn(3, 4))[0].max() == 5.0


def test_a_greedy_policy_gets_out_of_its_corners() -> None:
    actor, feature = DeterministicLatentActor(4, 2, [8]), torch.randn(3, 4)
    torch.nn.init.constant_(actor.net[-1].bias, 12.0)
    assert torch.tanh(actor.net(feature)).min() == 1.0  # in float32
    action = actor.mode(feature)
    assert torch.equal(action, actor.action(feature, torch.randn(3, 2))) and (action > 0.999).all()
    (gradient,) = torch.autograd.grad(action.sum(), actor.net[-1].bias)
    assert (gradient > 1e-6).all()


def test_mode_is_the_most_probable_of_its_draws() -> None:
    actor, feature = DreamerActor(4, 2, [8], init_std=1.0), torch.randn(5, 4)
    mean, std = actor(feature)
    density = TransformedDistribution(Normal(mean, std), [TanhTransform(cache_size=1), AffineTransform(0.0, 1.0)])
    draws = torch.tanh(mean + std * actor.mode_noise.unsqueeze(1))
    best = Independent(density, 1).log_prob(draws).argmax(0)
    torch.testing.assert_close(actor.mode(feature), draws[best, torch.arange(5)])
    assert torch.equal(actor.mode(feature), actor.mode(feature))


@pytest.mark.parametrize("name", DREAMERS)
def test_acting_carries_what_has_been_seen_and_done(name: str) -> None:
    algorithm, observation = build(DREAMERS[name]), torch.randn(4, 2, 3)
    new, old = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.bool)
    algorithm.explore(observation[0], new)
    remembered = algorithm.memory.get_extra_state().clone()
    assert remembered.abs().sum() > 0
    action = algorithm.explore(observation[1], old)
    assert torch.equal(action, algorithm.memory.get_extra_state()[:, -A:])
    assert action.abs().max() <= 1.0
    # an evaluation neither reads nor writes it
    kept, play = algorithm.memory.get_extra_state().clone(), algorithm.eval_policy()
    first, second = play(observation[2], new), play(observation[3], old)
    assert torch.equal(algorithm.memory.get_extra_state(), kept)
    again = algorithm.eval_policy()
    assert torch.equal(again(observation[2], new), first) and torch.equal(again(observation[3], old), second)
    torch.testing.assert_close(algorithm.act(observation[2]), first)
    # a run that goes on from a checkpoint takes the same step
    other = build(DREAMERS[name])
    other.load_state_dict(algorithm.state_dict())
    for each in (algorithm, other):
        each.memory.set_extra_state(remembered)
    torch.manual_seed(3)
    ours = algorithm.explore(observation[1], old)
    torch.manual_seed(3)
    assert torch.equal(other.explore(observation[1], old), ours)


def test_a_new_episode_forgets_the_old_one_in_its_own_environment_only() -> None:
    algorithm = build(Dreamer, exploration_sigma=0.0)
    observation, is_init = torch.randn(2, 3), torch.tensor([[True], [False]])
    results = []
    for state in (torch.randn(2, 6 + 4 + A), torch.randn(2, 6 + 4 + A)):
        algorithm.memory.set_extra_state(state)
        torch.manual_seed(0)
        results.append(algorithm.explore(observation, is_init))
    assert torch.equal(results[0][0], results[1][0]) and not torch.equal(results[0][1], results[1][1])


def test_revised_exploration_takes_random_actions_at_its_rate() -> None:
    algorithm = build(RevisedDreamer, random_action_prob=0.3, exploration_sigma=0.0)
    latent = algorithm.world_model.rssm.initial(20_000)
    torch.nn.init.constant_(algorithm.actor.net[-1].bias, 50.0)  # the policy itself always does the same
    torch.nn.init.constant_(algorithm.actor.net[-1].bias[A:], -50.0)
    action = algorithm.exploration_action(latent)
    rate = (action < 0.99).any(-1).float().mean()  # the policy's is tanh(5); 1 in 40 000 random ones is as high
    assert abs(rate - 0.3) < 5 * (0.21 / 20_000) ** 0.5


@pytest.mark.parametrize("time_order", get_args(TimeOrder))
@pytest.mark.parametrize("context", [2, 4])
def test_pictures_of_reconstruction_and_imagination(time_order: TimeOrder, context: int) -> None:
    algorithm = build(Dreamer, (3, 64, 64), time_order=time_order)
    rows = algorithm.reconstruct(sequences(1, 5, (3, 64, 64)), context)
    assert {name: (row.shape, row.dtype) for name, row in rows.items()} == {
        name: ((1, 5, 3, 64, 64), torch.uint8) for name in ("reconstruction", "imagined")
    }
    same = (rows["reconstruction"] == rows["imagined"]).flatten(2).all(-1)[0].tolist()
    assert same[:context] == [True] * context and not any(same[context:])


# ---------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("cls", "option", "value"),
    [
        (Dreamer, "horizon", 1),
        (Dreamer, "deter", 0),
        (Dreamer, "kl_scale", -1.0),
        (Dreamer, "lmbda", 1.5),
        (Dreamer, "exploration_sigma", -0.1),
        (RevisedDreamer, "random_action_prob", 2.0),
        (RevisedDreamer, "jeffreys_scale", float("nan")),
        (MaxEntDreamer, "density_heads", 0),
        (MaxEntDreamer, "entropy_gamma", -0.1),
    ],
)
def test_wrong_options_are_named(cls: Any, option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"model.{option}"):
        cls(**{option: value})
