"""What MBPO and MEMR imagine, fit and weigh."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import MBPO, MEMR, SAC
from lit_mbrl.envs import Spec
from lit_mbrl.losses import q_loss, soft_q_target
from lit_mbrl.models import RecurrentConfig, factories
from lit_mbrl.utils.errors import TrainingError
from tests.helpers.dyna import DYNA, EVENTS, IMAGINED, Known, make, make_dyna
from tests.helpers.frames import make_frames, make_given
from tests.helpers.runs import fit
from tests.unit.algorithms.test_routing import MODEL_FREE, TEMPERATURE, part

COUNTDOWN = {"hidden_sizes": [8], "world_model": Known()}


def built(algorithm: Any) -> Any:
    algorithm.configure(Spec("made up", 3, 2))
    return algorithm


# ---------------------------------------------------------------------- rollouts
def test_samples_leave_a_rollout_when_they_terminate() -> None:
    """The model counts down and ends below 0: a sample that starts at n + 1/2 has n + 1 steps."""
    algorithm = built(MBPO(**COUNTDOWN))
    starts = torch.tensor([0.5, 3.5, 1.5, 0.5, 9.5]).unsqueeze(-1).expand(5, 3)
    steps = list(algorithm.rollout(starts, 4))
    assert [frames["observation"][:, 0].tolist() for frames in steps] == [
        [0.5, 3.5, 1.5, 0.5, 9.5],
        [2.5, 0.5, 8.5],
        [1.5, 7.5],
        [0.5, 6.5],
    ]
    assert [frames["next", "terminated"].flatten().tolist() for frames in steps] == [
        [True, False, False, True, False],
        [False, True, False],
        [False, False],
        [True, False],
    ]
    for frames in steps:
        assert torch.equal(frames["next", "observation"], frames["observation"] - 1)
        assert (frames["next", "reward"] == IMAGINED).all() and not frames["action"].requires_grad
    assert algorithm._model_rollouts == 5 + 3 + 2 + 2


def test_a_rollout_ends_with_its_last_sample() -> None:
    algorithm = built(MBPO(**COUNTDOWN))
    assert len(list(algorithm.rollout(torch.full((4, 3), 1.5), 10))) == 2


def test_the_state_of_a_model_follows_its_samples() -> None:
    """A recurrent model's hidden state is that of the samples that are left."""
    algorithm = built(MBPO(hidden_sizes=[8], world_model=DYNA["mbpo_recurrent"]().world_model_factory))
    model = algorithm.world_model
    with torch.no_grad():
        model.termination_model.net[-1].weight.zero_()
        model.termination_model.net[-1].bias.zero_()  # half of the samples terminate at every step
    starts = torch.randn(64, 3)
    first, second, third, *_ = list(algorithm.rollout(starts, 5))
    kept = ~first["next", "terminated"].squeeze(-1)
    assert 0 < len(second) == int(kept.sum()) < 64
    model.requires_grad_(False)
    state = model.initial(starts[kept])
    for frames in (first[kept], second):
        torch.testing.assert_close(model.observation(state), frames["observation"])
        state = model.step(state, frames["action"]).state
    alive = ~second["next", "terminated"].squeeze(-1)
    torch.testing.assert_close(model.observation(state)[alive], third["observation"])


def test_actions_are_the_stochastic_policy_s_at_what_it_sees() -> None:
    algorithm = built(MBPO(**COUNTDOWN, normalize_observations=True))
    algorithm.normalizer.update(torch.randn(100, 3) * 5 + 2)
    starts = torch.randn(6, 3)
    seed = torch.get_rng_state()
    (frames,) = algorithm.rollout(starts, 1)
    torch.set_rng_state(seed)
    expected, _ = algorithm.sample_policy(algorithm.normalizer(starts))
    assert torch.equal(frames["action"], expected)


# ---------------------------------------------------------------------- training
@pytest.mark.parametrize("name", ["mbpo", "memr"])
def test_losses_are_sac_s_and_leave_the_model_alone(name: str) -> None:
    algorithm = built(DYNA[name]())
    found = {}
    for update in algorithm.updates():
        algorithm.zero_grad(set_to_none=True)
        batch = make_frames(6)
        batch["weight"] = torch.rand(6, 1)
        update.compute_loss(batch, make_given()).backward()
        reached = {key for key, p in algorithm.named_parameters() if p.grad is not None and p.grad.any()}
        found[update.name] = {part(key) for key in reached}
    assert found == {**MODEL_FREE, **TEMPERATURE}


@pytest.mark.parametrize("name", ["mbpo", "memr"])
def test_a_fit_moves_the_model_only(name: str) -> None:
    algorithm, data = make(name)
    fit(algorithm, data)
    for work, moved in (
        (lambda: algorithm.fit_model(data.replay), {"world_model"}),
        (lambda: algorithm.fit_behaviour(torch.randn(20, 3), torch.rand(20, 1)), {"behaviour"}),
    ):
        if moved == {"behaviour"} and name == "mbpo":
            continue
        before = {key: value.clone() for key, value in algorithm.state_dict().items()}
        work()
        after = algorithm.state_dict()
        assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == moved


def test_memr_s_critic_loss_is_the_weighted_one_row_by_row() -> None:
    algorithm = built(DYNA["memr"]())
    batch = make_frames(6)
    batch["weight"] = torch.rand(6, 1)
    seed = torch.get_rng_state()
    loss = algorithm.critic_loss(batch)
    torch.set_rng_state(seed)
    following = batch["next"]
    value = algorithm.soft_value_target(following["observation"])
    target = soft_q_target(following["reward"], following["terminated"], value, algorithm.gamma)
    rows = q_loss(algorithm.critic(batch["observation"], batch["action"]), target)
    expected = sum(batch["weight"][i, 0] * rows[e, i, 0] for e in range(2) for i in range(6)) / 6
    torch.testing.assert_close(loss, expected)
    torch.set_rng_state(seed)
    unweighted = SAC.apply_importance_weights(algorithm, rows, batch)
    assert torch.equal(unweighted, rows)


def test_a_model_that_is_not_finite_stops_the_run() -> None:
    algorithm, data = make("mbpo_known")
    fit(algorithm, data)
    with torch.no_grad():
        algorithm.world_model.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="'dynamics' is not finite"):
        algorithm.fit_model(data.replay)
    algorithm.finite.action = "skip"
    algorithm.fit_model(data.replay)
    assert algorithm.finite.skipped["dynamics"] > 0


@pytest.mark.parametrize("kind", [MBPO, MEMR])
def test_nothing_that_a_recurrent_model_s_fit_holds_out_is_learnt_from(
    kind: type[MBPO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as input nor as target; Pendulum's observations never repeat."""
    learnt, held = [], []

    def watched(model: Any, batch: Any, **options: Any) -> Any:
        (learnt if torch.is_grad_enabled() else held).append(batch)
        return dynamics(model, batch, **options)

    dynamics = factories._dynamics_loss
    monkeypatch.setattr(factories, "_dynamics_loss", watched)
    options = {"rollout_freq": 2, "segments": 3} if kind is MEMR else {"rollout_schedule": (1, 2, 2, 2)}
    model = RecurrentConfig(hidden_size=8, layers=1, decoder_layers=1, gru_layers=1)
    algorithm = kind(world_model=model, hidden_sizes=[8], model_max_epochs=1, **(EVENTS | options))
    data = make_dyna()
    fit(algorithm, data)
    assert len(held) > 1  # fits
    for _ in range(10):
        learnt.clear(), held.clear()
        algorithm.fit_model(data.replay)
        seen, out = (
            {tuple(row) for b in part for x in (b, b["next"]) for row in x["observation"].flatten(0, 1).tolist()}
            for part in (learnt, held)
        )
        assert len(seen) > 30 and len(out) >= 4 and not seen & out


# ---------------------------------------------------------------------- MEMR's policy of the imagined data
def test_behaviour_learns_the_actions_it_is_shown() -> None:
    """After many rollouts of one distribution psi is that distribution, and priorities are half a chi-square's."""
    algorithm, data = make("memr_known")
    algorithm.behaviour_lr = 1e-2
    fit(algorithm, data)
    for _ in range(150):
        observation = torch.randn(200, 3)
        algorithm.fit_behaviour(observation, 0.3 * observation[:, :1] + 0.1 * torch.randn(200, 1))
    observation = torch.randn(2000, 3)
    with torch.no_grad():
        mean, log_std = algorithm.behaviour(observation)
    assert (mean - 0.3 * observation[:, :1]).abs().mean() < 0.05
    assert float(log_std.exp().mean()) == pytest.approx(0.1, rel=0.4)
    action = 0.3 * observation[:, :1]
    assert algorithm.priority(observation, action).mean() < algorithm.priority(observation, action + 0.3).mean() / 5


def test_priorities_are_positive_and_the_code_s_are_clipped() -> None:
    for variant, low, high in (("paper", 1e-6, float("inf")), ("reference", 1e-4, 50.0)):
        algorithm = built(MEMR(variant=variant, hidden_sizes=[8], world_model=Known()))
        with torch.no_grad():
            algorithm.behaviour.net[-1].weight.zero_()
            algorithm.behaviour.net[-1].bias.copy_(torch.tensor([0.0, 0.0, -4.0, -4.0]))
        actions = torch.tensor([[0.0, 0.0], [0.01, 0.0], [0.9, -0.9]])
        priority = algorithm.priority(torch.randn(3, 3), actions)
        raw = torch.atanh(actions) if variant == "reference" else actions
        expected = 0.5 * (raw / torch.tensor(-4.0).exp()).square().sum(-1) / (2 if variant == "reference" else 1)
        torch.testing.assert_close(priority, expected.clamp(low, high), rtol=1e-3, atol=1e-5)
        mass = algorithm.priority_mass(torch.randn(3, 3), actions)
        torch.testing.assert_close(mass, priority**0.6)
