"""SAC-SVG(H): H = 0 is SAC, the round is Algorithm 1's, masks and horizons as documented."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import MVE, SAC, SACSVG
from lit_mbrl.envs import Spec
from lit_mbrl.models import EnsembleConfig, RecurrentConfig
from lit_mbrl.utils.errors import OptionError
from tests.helpers.frames import SMALL, make_frames


def twins(other: SACSVG) -> tuple[SAC, SACSVG]:
    """SAC and another algorithm with the same actor, critics and temperature."""
    sac = SAC(hidden_sizes=[8, 8], init_alpha=0.3)
    sac.configure(Spec("made up", 3, 2))
    other.configure(Spec("made up", 3, 2))
    missing = other.load_state_dict(sac.state_dict(), strict=False)
    assert not missing.unexpected_keys
    return sac, other


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_horizon_zero_is_exactly_sac(variant: str) -> None:
    sac, svg = twins(SACSVG(horizon=0, variant=variant, hidden_sizes=[8, 8], init_alpha=0.3))
    frames = make_frames(16)
    assert {update.name for update in svg.update_list} == {"actor", "alpha", "critic"}
    given: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    updates = {update.name: update for update in svg.update_list}
    for update in sac.update_list:
        torch.manual_seed(7)
        expected = update.compute_loss(frames, given[0])
        torch.manual_seed(7)
        found = updates[update.name].compute_loss(frames, given[1])
        assert torch.equal(expected, found), update.name
    assert torch.equal(given[0]["log_prob"], given[1]["log_prob"])
    for p, q in zip(sac.parameters(), svg.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
    torch.manual_seed(7)
    expected = torch.autograd.grad(sac.actor_loss(frames)[0], list(sac.actor.parameters()))
    torch.manual_seed(7)
    found = torch.autograd.grad(svg.actor_loss(frames)[0], list(svg.actor.parameters()))
    for p, q in zip(expected, found, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


def test_critic_horizon_zero_is_exactly_sac() -> None:
    sac, mve = twins(MVE(critic_horizon=0, horizon=0, hidden_sizes=[8, 8], init_alpha=0.3))
    frames = make_frames(16)
    torch.manual_seed(7)
    expected = sac.critic_loss(frames)
    torch.manual_seed(7)
    assert torch.equal(expected, mve.critic_loss(frames))


def test_round_is_algorithm_one() -> None:
    svg = SACSVG(horizon=3, **SMALL)
    svg.configure(Spec("made up", 3, 2))
    assert [(u.name, u.repeat, u.batch) for u in svg.update_list] == [
        ("actor", 1, "transitions"),
        ("alpha", 1, "transitions"),
        ("critic", 1, "transitions"),
        ("reward", 1, "transitions"),
        ("termination", 1, "transitions"),
        ("dynamics", 4, "sequences"),
    ]
    assert (svg.sampling().sequence_length, svg.sampling().sequence_batches) == (3, 4)


def test_warmup_uses_the_model_free_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    sac, svg = twins(SACSVG(horizon=2, warmup_steps=100, init_alpha=0.3, **SMALL))
    frames = make_frames(16)
    torch.manual_seed(7)
    expected, _ = sac.actor_loss(frames)
    for env_steps, equal in ((99, True), (100, False)):
        monkeypatch.setattr(SACSVG, "env_steps", env_steps)
        torch.manual_seed(7)
        assert torch.equal(expected, svg.actor_loss(frames)[0]) is equal


def test_terminal_value_counts_as_much_as_the_model_expects_to_live() -> None:
    """A model that is sure of termination leaves the first reward and entropy; one that never terminates, all."""
    svg = SACSVG(horizon=1, hidden_sizes=[8, 8], model_hidden_size=8, gamma=0.9, init_alpha=0.5)
    svg.configure(Spec("made up", 3, 2))
    frames = make_frames(5)
    head = svg.world_model.termination_model
    for bias, alive in ((50.0, 0.0), (-50.0, 1.0)):
        with torch.no_grad():
            head.net[-1].weight.zero_()
            head.net[-1].bias.fill_(bias)
        torch.manual_seed(3)
        loss, _ = svg.actor_loss(frames)
        torch.manual_seed(3)
        path = svg.imagine(frames["observation"], 1)
        q = svg.critic(path.observation[:, 1], path.action[:, 1]).amin(0)
        value = path.reward[:, 0] - 0.5 * path.log_prob[:, 0] + alive * 0.9 * (q - 0.5 * path.log_prob[:, 1])
        torch.testing.assert_close(loss, -value.mean())


@pytest.mark.parametrize("terminal", [True, False])
def test_actor_loss_of_the_public_code_is_that_of_a_loop(terminal: bool) -> None:
    """Value and gradient, step by step; without a terminal value nobody asks for the last termination."""
    svg = SACSVG(horizon=2, variant="reference", terminal_value=terminal, gamma=0.9, init_alpha=0.5, **SMALL)
    svg.configure(Spec("made up", 3, 2))
    svg.double()
    frames = make_frames(5).double()
    world, calls = svg.world_model, []
    world.termination_model.register_forward_hook(lambda *args: calls.append(1))
    torch.manual_seed(3)
    loss, _ = svg.actor_loss(frames)
    assert len(calls) == (3 if terminal else 2)
    torch.manual_seed(3)
    noise = svg.noise(5, 3)
    state, value, mask = world.initial(frames["observation"]), 0.0, 1.0
    for t in range(3):
        x = world.observation(state)
        u, log_prob = svg.actor.sample(x, noise[:, t])
        if t == 2 and not terminal:
            break
        mask = mask * (1.0 - world.termination_model(x, u).sigmoid())
        gain = world.reward_model(x, u) if t < 2 else svg.critic(x, u).amin(0)
        value = value + 0.9**t * (mask * gain - svg.alpha.detach() * log_prob)
        state, _, _ = world.step(state, u)
    expected = -value.mean() / 3
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=0)
    parameters = list(svg.actor.parameters())
    found, plain = (torch.autograd.grad(x, parameters) for x in (loss, expected))
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"horizon": -1}, "model.horizon"),
        ({"horizon": 0, "terminal_value": False}, "model.horizon"),
        ({"terminal_value": False, "warmup_steps": 5}, "model.warmup_steps"),
        ({"gamma": 1.5}, "model.gamma"),
        ({"init_alpha": 0.0}, "model.init_alpha"),
        ({"model_updates": 0}, "model.model_updates"),
        ({"hidden_sizes": [8, 0]}, "model.hidden_sizes"),
        (
            {"world_model": EnsembleConfig(num_members=2, num_elites=2), "model_hidden_size": 64},
            "model.model_hidden_size",
        ),
        ({"world_model": RecurrentConfig(), "detach_model_state": True}, "model.detach_model_state"),
        ({"world_model": EnsembleConfig(num_members=7, num_elites=5)}, "model.world_model.num_elites"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    with pytest.raises(OptionError, match=f"--{named}="):
        SACSVG(**options)


def test_model_error_is_measured_on_whole_windows_only() -> None:
    svg = SACSVG(horizon=2, **SMALL)
    svg.configure(Spec("made up", 3, 2))
    episodes = make_frames(4, 5)
    episodes["mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    metrics = svg.episode_metrics(episodes)
    errors = []
    for episode, first in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0)):
        window = episodes[episode, first : first + 2]
        predicted = svg.world_model.dynamics.unroll(window["observation"][:1], window["action"][None])[0]
        errors.append((predicted - window["next", "observation"]).square().mean(-1))
    expected = torch.stack(errors).mean(0)
    torch.testing.assert_close(torch.stack([metrics["model/mse_1"], metrics["model/mse_2"]]), expected)


def test_orthogonal_init_is_an_option() -> None:
    svg = SACSVG(horizon=1, orthogonal_init=True, **SMALL)
    svg.configure(Spec("made up", 3, 2))
    world = svg.world_model
    chosen = [svg.actor, svg.critic, svg.critic_target, world.dynamics.encoder, world.dynamics.decoder]
    for layer in (layer for network in chosen for layer in network.modules() if isinstance(layer, torch.nn.Linear)):
        singular = torch.linalg.svdvals(layer.weight)
        torch.testing.assert_close(singular, torch.ones_like(singular), atol=1e-5, rtol=0)
        assert not layer.bias.any()
    assert world.reward_model.net[0].bias.any() and world.dynamics.cells[0].bias_hh.any()
    default = SACSVG(horizon=1, **SMALL)
    default.configure(Spec("made up", 3, 2))
    assert default.actor.net[0].bias.any() and default.world_model.dynamics.decoder[0].bias.any()


def test_a_round_on_an_ensemble_takes_fresh_transitions_for_each_model_update() -> None:
    svg = SACSVG(
        horizon=3,
        hidden_sizes=[8],
        model_updates=2,
        world_model=EnsembleConfig(num_members=2, num_elites=2, hidden_sizes=[8]),
    )
    svg.configure(Spec("made up", 3, 2))
    assert [(u.name, u.repeat, u.batch) for u in svg.update_list][3:] == [
        ("termination", 1, "transitions"),
        ("dynamics", 2, "sequences"),
    ]
    assert (svg.sampling().sequence_length, svg.sampling().sequence_batches) == (1, 2)


def test_a_known_termination_is_asked_about_raw_observations() -> None:
    """Normalised observations are what the model predicts; a rule is about the task's own."""
    asked = []

    def rule(x: torch.Tensor, u: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        asked.append((x, following))
        return following[:, :1] > 10.0

    svg = SACSVG(
        horizon=1,
        hidden_sizes=[8],
        normalize_observations=True,
        world_model=EnsembleConfig(num_members=1, num_elites=1, hidden_sizes=[8], propagation="mean"),
    )
    svg.configure(Spec("made up", 3, 2, terminated=rule))
    svg.normalizer.update(10.0 + 2.0 * torch.randn(1000, 3))
    raw = 10.0 + 2.0 * torch.randn(6, 3)
    path = svg.imagine(svg.normalize(raw), 1)
    ((x, following),) = asked
    torch.testing.assert_close(x, raw)
    torch.testing.assert_close(svg.normalize(following), path.observation[:, 1])
    assert torch.equal(path.termination_prob[:, 0] == 1.0, following[:, :1] > 10.0)
    assert 0 < path.termination_prob.mean() < 1
    assert [update.name for update in svg.update_list] == ["actor", "alpha", "critic", "dynamics"]


def test_recurrent_by_name_is_the_model_of_the_options() -> None:
    options = SACSVG(horizon=2, hidden_sizes=[8], model_hidden_size=8, model_layers=1, decoder_layers=0)
    named = SACSVG(horizon=2, hidden_sizes=[8], world_model=RecurrentConfig(hidden_size=8, layers=1, decoder_layers=0))
    losses = []
    frames = make_frames(6), make_frames(6, 2)
    for svg in (options, named):
        torch.manual_seed(3)
        svg.configure(Spec("made up", 3, 2))
        updates = [update for update in svg.update_list if update.name != "alpha"]
        losses.append([each.compute_loss(frames[each.batch == "sequences"], {}).item() for each in updates])
    assert losses[0] == losses[1]
