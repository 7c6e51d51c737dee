"""STEVE's targets through the networks against loops, what it reduces to, and MVE-DDPG's loss."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms import DDPG, MVEDDPG, SAC, STEVE, STEVESAC
from lit_mbrl.envs import Spec
from lit_mbrl.models import SplitEnsembleConfig
from lit_mbrl.networks import BatchedQEnsemble, QEnsemble
from lit_mbrl.utils.errors import OptionError
from tests.helpers.frames import make_frames, small_ensembles
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data

B, OBS, A, GAMMA = 12, 3, 2, 0.9


def make(kind: type, members: tuple[int, int, int] = (3, 2, 4), horizon: int = 2, **options: Any) -> Any:
    """A built algorithm in float64 with (transitions, rewards, critics) members."""
    transitions, rewards, critics = members
    model = SplitEnsembleConfig(num_transitions=transitions, num_rewards=rewards, hidden_sizes=[8, 8], head_sizes=[8])
    algorithm = kind(
        horizon=horizon, num_critics=critics, world_model=model, gamma=GAMMA, hidden_sizes=[8, 8], **options
    )
    algorithm.configure(Spec("made up", OBS, A))
    return algorithm.double()


def frames64() -> TensorDict:
    frames = make_frames(B)
    return frames.apply(lambda x: x if x.dtype is torch.bool else x.double())


def single(networks: Any, i: int, *inputs: Tensor) -> Tensor:
    """The i-th network by itself."""
    x = torch.cat(inputs, -1)
    *hidden, last = zip(networks.weights, networks.biases, strict=True)
    for weight, bias in hidden:
        x = torch.relu(x @ weight[i] + bias[i])
    return x @ last[0][i] + last[1][i]


@torch.no_grad()
def looped_target(algorithm: Any, frames: TensorDict, noise: Tensor | None = None) -> Tensor:
    """The mixed target, one transition, horizon and combination of members at a time."""
    model, critics, alpha = algorithm.world_model, algorithm.critic_target, 0.0
    if isinstance(algorithm, STEVESAC):
        alpha = float(algorithm.alpha)
    targets = []
    for b in range(B):
        x0 = frames["next", "observation"][b : b + 1]
        candidates: list[list[float]] = [[] for _ in range(algorithm.horizon + 1)]
        for m, n, k in product(range(model.transitions), range(model.rewards), range(critics.num)):
            x, total = x0, float(frames["next", "reward"][b])
            alive = 1.0 - float(frames["next", "terminated"][b])
            for i in range(algorithm.horizon + 1):
                if noise is None:
                    u, log_prob = algorithm.actor(x), 0.0
                else:
                    u, log_prob = algorithm.actor.sample(x, noise[b : b + 1, i])
                twins = [float(single(critics.networks, t * critics.num + k, x, u)) for t in range(critics.twins)]
                value = min(twins) - alpha * float(log_prob)
                weight = GAMMA ** (i + 1) * alive
                candidates[i].append(total + weight * value)
                following = x + single(model.dynamics, m, x, u)
                total += weight * (float(single(model.reward_model, n, following, x, u)) - alpha * float(log_prob))
                alive *= 1.0 - float(single(model.termination_model, m, following, x, u).sigmoid())
                x = following
        table = torch.tensor(candidates, dtype=torch.float64)
        confidence = 1.0 / (table.var(1, correction=0) + 1e-8)
        targets.append((confidence * table.mean(1)).sum() / confidence.sum())
    return torch.stack(targets).unsqueeze(1)


def test_steve_s_target_is_the_loop_over_all_combinations() -> None:
    algorithm, frames = make(STEVE), frames64()
    torch.testing.assert_close(algorithm.mixed_target(frames), looped_target(algorithm, frames), atol=1e-9, rtol=0)


def test_the_soft_target_is_the_loop_over_all_combinations() -> None:
    algorithm, frames = make(STEVESAC, init_alpha=0.3), frames64()
    torch.manual_seed(3)
    target = algorithm.mixed_target(frames)
    torch.manual_seed(3)
    noise = algorithm.rollout_noise(B)  # the same for every member
    torch.testing.assert_close(target, looped_target(algorithm, frames, noise), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", [STEVE, STEVESAC])
def test_targets_are_constants(kind: type) -> None:
    algorithm, frames = make(kind), frames64()
    assert not algorithm.mixed_target(frames).requires_grad
    algorithm.critic_loss(frames).backward()
    reached = {name.split(".")[0] for name, parameter in algorithm.named_parameters() if parameter.grad is not None}
    assert reached == {"critic"}


@pytest.mark.parametrize("data", ["shares", "batch"])
def test_each_critic_learns_the_mixed_target_on_its_own_rows(data: str) -> None:
    algorithm, frames = make(STEVE, member_data=data), frames64()
    loss = algorithm.critic_loss(frames)
    target, expected = algorithm.mixed_target(frames), torch.zeros((), dtype=torch.float64)
    assert algorithm.world_model.data == data
    all_rows = torch.arange(B)
    for i, rows in enumerate(all_rows.chunk(4) if data == "shares" else [all_rows] * 4):
        q = single(algorithm.critic.networks, i, frames["observation"][rows], frames["action"][rows])
        expected = expected + (q - target[rows]).square().mean()
    torch.testing.assert_close(loss, expected)


def copy_critics(batched: BatchedQEnsemble, separate: QEnsemble) -> None:
    """Gives a batched member of twins the weights of as many separate critics."""
    for k, member in enumerate(separate.members):
        linear = [layer for layer in member if isinstance(layer, torch.nn.Linear)]
        for weight, bias, layer in zip(batched.networks.weights, batched.networks.biases, linear, strict=True):
            weight.data[k] = layer.weight.data.T
            bias.data[k, 0] = layer.bias.data


def pair(kind: type, base: type, **options: Any) -> tuple[Any, Any]:
    """STEVE with one member and H = 0, and its model-free base with the same weights."""
    algorithm = make(kind, (1, 1, 1), horizon=0, **options)
    plain = base(hidden_sizes=[8, 8], gamma=GAMMA)
    plain.configure(Spec("made up", OBS, A))
    plain.double()
    for name in ("critic", "critic_target"):
        copy_critics(getattr(algorithm, name), getattr(plain, name))
    for name in ("actor", "actor_target", "log_alpha"):
        if hasattr(plain, name):
            own, other = getattr(algorithm, name), getattr(plain, name)
            own.data.copy_(other.data) if isinstance(own, Tensor) else own.load_state_dict(other.state_dict())
    return algorithm, plain


@pytest.mark.parametrize(
    ("kind", "base", "options"), [(STEVE, DDPG, {"target_policy": True}), (STEVESAC, SAC, {})], ids=["ddpg", "sac"]
)
def test_one_member_and_no_horizon_is_the_model_free_algorithm(kind: type, base: type, options: dict) -> None:
    algorithm, plain = pair(kind, base, **options)
    frames = frames64()
    names = [update.name for update in algorithm.update_list]
    assert names == [update.name for update in plain.update_list]
    for loss in ("critic_loss", "actor_loss"):
        values, gradients = [], []
        for each in (algorithm, plain):
            torch.manual_seed(5)
            value = getattr(each, loss)(frames)
            value = value[0] if isinstance(value, tuple) else value
            gradients.append(torch.autograd.grad(value, list(each.actor.parameters()), allow_unused=True))
            values.append(value)
        torch.testing.assert_close(*values, atol=1e-12, rtol=1e-12)
        for ours, theirs in zip(*gradients, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    torch.manual_seed(5)
    target = algorithm.mixed_target(frames)
    torch.manual_seed(5)
    following = frames["next"]
    if base is SAC:
        value = plain.soft_value_target(following["observation"])
    else:
        value = plain.critic_target(following["observation"], plain.target_action(following["observation"])).amin(0)
    expected = following["reward"] + GAMMA * value * ~following["terminated"]
    torch.testing.assert_close(target, expected, atol=1e-12, rtol=1e-12)


def test_the_target_s_policy_is_the_current_one_unless_asked_for() -> None:
    frames = frames64()
    for slow in (False, True):
        algorithm = make(STEVE, target_policy=slow)
        before = algorithm.mixed_target(frames)
        torch.nn.init.normal_(algorithm.actor.net[0].weight)
        assert torch.equal(before, algorithm.mixed_target(frames)) == slow


@pytest.mark.parametrize("td_k", [True, False])
def test_mve_s_loss_is_the_td_k_sum(td_k: bool) -> None:
    algorithm = MVEDDPG(horizon=3, td_k=td_k, gamma=GAMMA, hidden_sizes=[8, 8], world_model=small_ensembles(1))
    algorithm.configure(Spec("made up", OBS, A))
    algorithm.double()
    frames = frames64()
    model, x = algorithm.world_model, frames["next", "observation"]
    states, actions, rewards, ends = [], [], [], []
    with torch.no_grad():
        for _ in range(3):
            u = algorithm.actor(x)
            following = x + single(model.dynamics, 0, x, u)
            states.append(x)
            actions.append(u)
            rewards.append(single(model.reward_model, 0, following, x, u))
            ends.append(single(model.termination_model, 0, following, x, u).sigmoid())
            x = following
        value = single(algorithm.critic_target.networks, 0, x, algorithm.actor(x))
        targets = []
        for reward, end in zip(reversed(rewards), reversed(ends), strict=True):
            value = reward + GAMMA * (1.0 - end) * value
            targets.insert(0, value)
        alive = 1.0 - frames["next", "terminated"].double()
        first = frames["next", "reward"] + GAMMA * alive * value
    networks = algorithm.critic.networks
    terms = [(single(networks, 0, frames["observation"], frames["action"]) - first).square()]
    if td_k:
        for x, u, target, end in zip(states, actions, targets, ends, strict=True):
            terms.append(alive * (single(networks, 0, x, u) - target).square())
            alive = alive * (1.0 - end)
    torch.testing.assert_close(algorithm.critic_loss(frames), torch.stack(terms).mean())


def test_the_cost_of_a_target_is_linear_in_horizon_and_members(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    original = torch.baddbmm

    def count(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        rows.append(x.shape[0] * x.shape[1] * weight.shape[1] * weight.shape[2])
        return original(bias, x, weight)

    monkeypatch.setattr(torch, "baddbmm", count)

    def cost(members: tuple[int, int, int], horizon: int) -> int:
        algorithm = make(STEVE, members, horizon)
        rows.clear()
        algorithm.mixed_target(frames64())
        return sum(rows)

    base, two, four = (cost((2, 2, 2), horizon) for horizon in (1, 2, 3))
    assert four - two == two - base > 0
    models = [cost((m, 1, 1), 2) for m in (1, 2, 3)]
    assert models[2] - models[1] == models[1] - models[0] > 0
    critics = [cost((2, 2, k), 2) for k in (1, 2, 3)]
    assert critics[2] - critics[1] == critics[1] - critics[0] > 0


@torch.no_grad()
def test_exploration_of_the_public_code() -> None:
    algorithm = STEVE(exploration_chance=0.25, horizon=0, hidden_sizes=[8])
    algorithm.configure(Spec("made up", OBS, A))
    observation = torch.randn(4000, OBS)
    explored = algorithm.explore(observation, torch.zeros(4000, 1, dtype=torch.bool))
    moved = explored != algorithm.act(observation)
    assert 0.22 < moved.float().mean() < 0.28
    shift = (torch.atanh(explored.double()) - algorithm.actor.net(observation).double())[moved]
    assert abs(float(shift.mean())) < 0.1 and 0.9 < float(shift.std()) < 1.1


def test_the_penalty_is_that_of_the_action_before_its_tanh() -> None:
    free, penal = make(STEVE), make(STEVE, action_penalty=0.5)
    penal.load_state_dict(free.state_dict())
    frames = frames64()
    expected = 0.5 * free.actor.net(frames["observation"]).square().mean()
    torch.testing.assert_close(penal.actor_loss(frames) - free.actor_loss(frames), expected)


def short(**options: Any) -> STEVE:
    return STEVE(horizon=2, num_critics=2, hidden_sizes=[8, 8], world_model=small_ensembles(), **options)


def test_pretraining_trains_the_models_alone_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int]] = []

    class Counted(STEVE):
        def gradient_step(self, update: Any, optimizer: Any, frames: Any, given: Any) -> Tensor:
            steps.append((update.name, self.train_steps))
            return super().gradient_step(update, optimizer, frames, given)

    algorithm = Counted(
        horizon=2, num_critics=2, hidden_sizes=[8, 8], world_model=small_ensembles(), pretrain_updates=7
    )
    seen: list[str] = []
    monkeypatch.setattr(algorithm, "notify_progress", seen.append)
    fit(algorithm, make_data())
    assert seen[0] == "training the models: update 1 of 7" and len(seen) == 7
    pretrained = [name for name, train_steps in steps if train_steps == 0]
    assert pretrained == ["dynamics", "reward", "termination"] * 7
    assert [name for name, train_steps in steps if train_steps == 1] == [
        "dynamics",
        "reward",
        "termination",
        "critic",
        "actor",
    ]


@torch.no_grad()
def test_evaluations_measure_the_mean_of_the_models() -> None:
    algorithm = short()
    algorithm.configure(Spec("made up", OBS, A))
    episodes = make_frames(3, 2)
    episodes["mask"] = torch.ones(3, 2, dtype=torch.bool)
    model, x = algorithm.world_model, episodes["observation"][:, 0]
    states = [x, x]
    metrics = algorithm.episode_metrics(episodes)
    for t in range(2):
        u = episodes["action"][:, t]
        states = [state + single(model.dynamics, m, state, u) for m, state in enumerate(states)]
        error = (torch.stack(states).mean(0) - episodes["next", "observation"][:, t]).square().mean()
        torch.testing.assert_close(metrics[f"model/mse_{t + 1}"], error)


@pytest.mark.parametrize("rounds", [1, 9])
def test_a_pretrained_run_resumes_exactly(rounds: int, tmp_path: Path) -> None:
    whole, whole_data = short(pretrain_updates=5), make_data()
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(short(pretrain_updates=5), make_data(), SaveAndStop(tmp_path / "run.ckpt", rounds))
    second, second_data = short(pretrain_updates=5), make_data()
    fit(second, second_data, ckpt_path=tmp_path / "run.ckpt", seed=1)
    ours, theirs = everything(second, second_data), everything(whole, whole_data)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: STEVE(horizon=-1), "model.horizon=-1"),
        (lambda: STEVE(num_critics=0), "model.num_critics=0"),
        (lambda: STEVE(pretrain_updates=-1), "model.pretrain_updates=-1"),
        (lambda: STEVE(exploration_chance=1.5), "model.exploration_chance=1.5"),
        (lambda: STEVE(action_penalty=-1.0), "model.action_penalty=-1.0"),
        (lambda: STEVESAC(orthogonal_init=True), "model.orthogonal_init=True"),
        (lambda: MVEDDPG(horizon=0), "model.horizon=0"),
        (lambda: MVEDDPG(world_model=small_ensembles(2)), "model.world_model.num_transitions=2"),
        (lambda: fit(short(), make_data(batch_size=7)), "data.batch_size=7"),
    ],
)
def test_wrong_options_are_refused_in_one_line(make_one: Any, message: str) -> None:
    with pytest.raises(OptionError) as error:
        make_one()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_device_s_share_of_the_batch_is_split() -> None:
    algorithm = short()
    algorithm.check_data(make_data(batch_size=6))
    with pytest.raises(OptionError, match="number of devices, 2"):
        algorithm.check_devices(2)
    whole = short(member_data="batch")
    whole.check_data(make_data(batch_size=7))
    whole.check_devices(2)
