from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.fx.experimental.proxy_tensor import make_fx

from lit_mbrl.envs.tasks.terminations import hopper
from lit_mbrl.imagination import imagine
from lit_mbrl.losses import bound_penalty, value_gradient_loss
from lit_mbrl.models import EnsembleConfig, EnsembleDynamics, EnsembleWorldModel, RecurrentConfig, WorldModel
from lit_mbrl.networks import TanhGaussianActor
from lit_mbrl.returns import survival, value_expansion
from lit_mbrl.utils.errors import OptionError
from tests.helpers.frames import make_frames

E, K, B, T, O, A = 4, 3, 6, 5, 3, 2  # noqa: E741


def make(**options: object) -> EnsembleWorldModel:
    model = EnsembleConfig(num_members=E, num_elites=K, hidden_sizes=[8, 8], **options).build(O, A)
    for parameter in model.dynamics.networks.biases:
        nn.init.normal_(parameter)
    return model


def never(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return following[:, :1] > 1e9


# ---------------------------------------------------------------------- the verbs
@pytest.mark.parametrize("factory", [EnsembleConfig(hidden_sizes=[8]), RecurrentConfig(hidden_size=8)])
def test_models_speak_the_same_verbs(factory: EnsembleConfig | RecurrentConfig) -> None:
    model = factory.build(O, A)
    assert isinstance(model, WorldModel)
    x, u = torch.randn(B, O), torch.randn(B, A)
    state, reward, logit = model.step(model.initial(x), u)
    assert model.observation(state).shape == (B, O)
    assert reward.shape == logit.shape == (B, 1)
    assert torch.equal(model.termination_logit(model.initial(x), u), logit)
    assert model.unroll(x, torch.randn(B, T, A)).shape == (B, T, O)
    trained = [id(p) for objective in factory.objectives(model) for p in objective.parameters()]
    assert sorted(trained) == sorted(map(id, model.parameters()))  # every parameter, once


def test_a_step_is_an_elite_s_prediction_with_its_noise() -> None:
    model = make()
    model.dynamics.elites.copy_(torch.tensor([3, 0, 2]))
    x, u = torch.randn(B, O), torch.randn(B, A)
    mean, log_var = model.dynamics(x, u)  # [E, B, D]
    torch.manual_seed(5)
    following, reward, _ = model.step(x, u)
    torch.manual_seed(5)
    member = model.dynamics.elites[torch.randint(K, (B,))]
    rows = torch.arange(B)
    expected = mean[member, rows] + (0.5 * log_var[member, rows]).exp() * torch.randn(B, O + 1)
    torch.testing.assert_close(following, x + expected[:, :O])
    torch.testing.assert_close(reward, expected[:, O:])
    assert len(set(member.tolist())) > 1


def test_propagation_by_the_mean_adds_no_noise() -> None:
    model = make(propagation="mean")
    model.dynamics.elites.fill_(2)
    x, u = torch.randn(B, O), torch.randn(B, A)
    following, reward, _ = model.step(x, u)
    mean = model.dynamics(x, u)[0][2]
    torch.testing.assert_close(torch.cat([following - x, reward], -1), mean)


def test_elites_are_drawn_evenly_and_anew_for_each_sample_and_step() -> None:
    """300 000 draws among 3: each frequency has a standard deviation of 9e-4, so 5 of them are missed by 6e-7."""
    model = make(propagation="mean")
    with torch.no_grad():  # members that say who they are
        for w, b in zip(model.dynamics.networks.weights, model.dynamics.networks.biases, strict=True):
            w.zero_(), b.zero_()
        model.dynamics.networks.biases[-1][:, 0, O] = torch.arange(float(E))
    model.dynamics.elites.copy_(torch.tensor([0, 1, 3]))
    x, u = torch.zeros(300_000, O), torch.zeros(300_000, A)
    first, second = (model.step(x, u).reward.flatten() for _ in range(2))
    for elite in (0.0, 1.0, 3.0):
        assert (first == elite).float().mean().item() == pytest.approx(1 / 3, abs=0.0045)
        both = ((first == elite) & (second == elite)).float().mean().item()
        assert both == pytest.approx(1 / 9, abs=0.003)
    assert not (first == 2.0).any()


def test_a_trace_gives_the_same_numbers_and_gradients_for_other_draws() -> None:
    """The shapes of a trace must not depend on the elites that happened to be drawn while it was made."""
    model = make()
    x, u = torch.randn(B, O, requires_grad=True), torch.randn(B, A, requires_grad=True)

    def predict(x: Tensor, u: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        return model.dynamics.predict(x, u, choice)

    traced = make_fx(predict)(x, u, torch.zeros(B, dtype=torch.int64))
    for _ in range(5):
        choice = torch.randint(K, (B,))
        expected, found = predict(x, u, choice), traced(x, u, choice)
        torch.testing.assert_close(found, expected)
        for a, b in zip(
            torch.autograd.grad(sum(e.sum() for e in expected), (x, u)),
            torch.autograd.grad(sum(f.sum() for f in found), (x, u)),
            strict=True,
        ):
            torch.testing.assert_close(b, a)


def test_a_trace_draws_anew_at_every_call() -> None:
    """As eager steps and losses do under the same seeds: nothing that is drawn is frozen into the graph."""
    model = make()
    x, u = torch.randn(B, O), torch.randn(B, A)
    frames = make_frames(B, 1)

    def step(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(model.step(x, u))

    def loss(observation: Tensor, following: Tensor) -> Tensor:
        following = {"observation": following, "reward": frames["next", "reward"]}
        return model.dynamics.bootstrapped_loss(
            TensorDict({"observation": observation, "action": frames["action"], "next": following}, [B, 1])
        )

    for function, inputs in ((step, (x, u)), (loss, (frames["observation"], frames["next", "observation"]))):
        traced = make_fx(function)(*inputs)
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            expected = function(*inputs)
            torch.manual_seed(seed)
            results.append(traced(*inputs))
            torch.testing.assert_close(results[-1], expected)
        first, second = (result[0] if isinstance(result, tuple) else result for result in results)
        assert not torch.equal(first, second)


def test_unroll_is_the_mean_of_the_elites_step_by_step() -> None:
    model = make()
    x, actions = torch.randn(B, O), torch.randn(B, T, A)
    found = model.unroll(x, actions)
    for t in range(T):
        x = x + model.dynamics(x, actions[:, t])[0][model.dynamics.elites, :, :O].mean(0)
        torch.testing.assert_close(found[:, t], x)


# ---------------------------------------------------------------------- gradients
def test_gradcheck_of_a_step_and_of_an_imagined_rollout() -> None:
    model = make().double()
    actor = TanhGaussianActor(O, A, []).double()
    noise = torch.randn(2, 3, A, dtype=torch.float64)

    def step(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        following, reward, _ = model.step(x, u)
        return following, reward

    def value(x: Tensor, *weights: Tensor) -> Tensor:
        torch.manual_seed(3)
        policy = lambda x, noise: torch.func.functional_call(  # noqa: E731
            Sampler(actor), dict(zip(names, weights, strict=True)), (x, noise)
        )
        path = imagine(policy, model, x, noise)
        return value_expansion(path.reward, path.log_prob, None, 0.2, 0.9, survival(path.termination_prob))

    x = torch.randn(2, O, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, A, dtype=torch.float64, requires_grad=True)
    assert gradcheck(step, (x, u))
    names = [f"actor.{name}" for name, _ in actor.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in actor.parameters()]
    assert gradcheck(value, (x, *weights))


class Sampler(nn.Module):
    def __init__(self, actor: TanhGaussianActor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor.sample(x, noise)


@pytest.mark.parametrize("over", [True, False])
def test_a_certain_termination_gives_finite_values_and_gradients(over: bool) -> None:
    rule = lambda x, u, following: (following[:, :1] > -1e9) == over  # noqa: E731
    model = EnsembleConfig(num_members=E, hidden_sizes=[8], num_elites=K).build(O, A, rule)
    assert model.termination_model is None
    actor = TanhGaussianActor(O, A, [8])
    x = torch.randn(B, O, requires_grad=True)
    path = imagine(actor.sample, model, x, torch.randn(B, 3, A))
    assert (path.termination_prob == float(over)).all()
    loss = value_gradient_loss(
        value_expansion(path.reward, path.log_prob, None, 0.2, 0.9, survival(path.termination_prob))
    ).mean()
    loss.backward()
    gradients = [x.grad, *(p.grad for p in actor.parameters())]
    assert all(torch.isfinite(g).all() for g in gradients) and gradients[0].any()
    if over:  # only the first step counts
        torch.testing.assert_close(loss, -(path.reward[:, 0] - 0.2 * path.log_prob[:, 0]).mean())


def test_a_rule_reads_the_next_observation() -> None:
    model = EnsembleConfig(num_members=E, hidden_sizes=[8], num_elites=K).build(11, A, hopper)
    x = torch.zeros(B, 11)
    x[:, 0] = torch.tensor([1.2, 1.2, 0.2, 1.2, 0.2, 1.2])
    following, _, logit = model.step(x, torch.zeros(B, A))
    assert torch.equal(logit > 0, hopper(None, None, following)) and torch.isinf(logit).all()


# ---------------------------------------------------------------------- learning
@pytest.mark.parametrize("probabilistic", [True, False])
def test_the_loss_is_the_sum_of_the_members_alone(probabilistic: bool) -> None:
    model = make(probabilistic=probabilistic, propagation="mean").dynamics
    frames = make_frames(E, B)
    mean, log_var = model(frames["observation"], frames["action"])
    target = torch.cat([frames["next", "observation"] - frames["observation"], frames["next", "reward"]], -1)
    expected = torch.zeros(())
    for i in range(E):
        error = (mean[i] - target[i]).square()
        expected = expected + ((error * (-log_var[i]).exp() + log_var[i]) if probabilistic else error).mean()
        decays = (2.5e-5, 5e-5, 1e-4)
        expected = expected + sum(
            0.5 * d * w[i].square().sum() for d, w in zip(decays, model.networks.weights, strict=True)
        )
    if probabilistic:
        expected = expected + bound_penalty(model.min_log_var, model.max_log_var)
    assert model.loss(frames).shape == (E,)
    torch.testing.assert_close(model.loss(frames).sum(), expected)


def test_the_bounds_learn_and_a_deterministic_ensemble_has_none() -> None:
    model = make().dynamics
    model.loss(make_frames(E, B)).sum().backward()
    assert model.max_log_var.grad.any() and model.min_log_var.grad.any()
    assert not hasattr(make(probabilistic=False, propagation="mean").dynamics, "max_log_var")


def test_a_round_s_batch_is_resampled_for_every_member(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = make().dynamics, []
    monkeypatch.setattr(EnsembleDynamics, "loss", lambda self, frames: seen.append(frames) or torch.zeros(E))
    frames = make_frames(500, 1)
    model.bootstrapped_loss(frames)
    (drawn,) = seen
    assert drawn.shape == (E, 500)
    for member in drawn:  # 63 % of a set are in a resample of its size, give or take 1.4 %
        assert 0.55 < len(torch.unique(member["action"], dim=0)) / 500 < 0.71
    assert not torch.equal(drawn["action"][0], drawn["action"][1])


def test_the_scaler_standardises_the_inputs_of_its_data() -> None:
    model = make().dynamics
    frames = make_frames(50, 4)
    frames["observation"] = 30.0 + 7.0 * frames["observation"]
    frames["observation"][..., 1] = 2.5  # never varies
    model.fit_scaler(frames)
    scaled = model.scale(frames["observation"], frames["action"]).flatten(0, 1)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(O + A), atol=1e-4, rtol=0.0)
    varying = [0, 2, 3, 4]
    torch.testing.assert_close(scaled.std(0, correction=0)[varying], torch.ones(4), atol=1e-4, rtol=0.0)
    assert not scaled[:, 1].any()
    assert {"dynamics.input_mean", "dynamics.input_std", "dynamics.elites"} <= make().state_dict().keys()


# ---------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_members": 0}, "num_members"),
        ({"num_members": 2, "num_elites": 3}, "num_elites"),
        ({"hidden_sizes": [8, 0]}, "hidden_sizes"),
        ({"hidden_sizes": [8], "weight_decay": [0.1]}, "weight_decay"),
        ({"weight_decay": [0.1, 0.1, 0.1, 0.1, -0.1]}, "weight_decay"),
        ({"activation": "gelu"}, "activation"),
        ({"propagation": "all"}, "propagation"),
        ({"probabilistic": False}, "propagation"),
        ({"termination": "maybe"}, "termination"),
        ({"lr": 0.0}, "lr"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    with pytest.raises(OptionError, match=f"--model.world_model.{named}="):
        EnsembleConfig(**options)


def test_termination_is_known_learned_or_whichever_there_is() -> None:
    sizes = {"hidden_sizes": [8]}
    for mode, rule, learned in (("auto", None, True), ("auto", never, False), ("known", never, False)):
        assert (EnsembleConfig(termination=mode, **sizes).build(O, A, rule).termination_model is not None) == learned
    assert EnsembleConfig(termination="learned", **sizes).build(O, A, never).termination_model is not None
    with pytest.raises(OptionError, match="--model.world_model.termination=known"):
        EnsembleConfig(termination="known", **sizes).build(O, A, None)


def test_weight_decay_follows_the_depth() -> None:
    assert EnsembleConfig().decays == (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    assert EnsembleConfig(hidden_sizes=[8]).decays == (2.5e-5, 1e-4)
    assert EnsembleConfig(hidden_sizes=[8] * 5).decays == (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 7.5e-5, 1e-4)


def test_frames_without_a_batch_are_not_mistaken_for_members() -> None:
    frames = TensorDict({**make_frames(E, B)}, [E, B])
    model = make().dynamics
    torch.testing.assert_close(model.error(frames), model.error(frames.flatten()))


def test_scaled_targets_are_learned_in_their_own_units() -> None:
    """A dimension of 1e-3 counts as much as one of 1e3, and predictions come back in the task's units."""
    torch.manual_seed(0)
    dynamics = EnsembleDynamics(2, 1, 3, 3, [16], "relu", False, [0.0, 0.0], scale_targets=True)
    observation, action = torch.randn(200, 2), torch.randn(200, 1)
    change = torch.cat([1e-3 * action + 5e-3, 1e3 * observation[:, :1]], -1)
    following = {"observation": observation + change, "reward": torch.zeros(200, 1)}
    frames = TensorDict({"observation": observation, "action": action, "next": following}, [200])
    dynamics.fit_scaler(frames)
    expected = torch.cat([observation + change - observation, torch.zeros(200, 1)], -1)
    torch.testing.assert_close(dynamics.target_mean, expected.mean(0))
    torch.testing.assert_close(dynamics.target_std[:2], expected[:, :2].std(0, correction=0))
    assert dynamics.target_std[2] == 1.0  # the reward never varies

    mean, _ = dynamics(observation, action)
    error = ((mean - expected) / dynamics.target_std).square().mean((1, 2))
    torch.testing.assert_close(dynamics.error(frames), error)
    torch.testing.assert_close(dynamics.data_loss(frames.expand(3, 200)), error)
    optimizer = torch.optim.Adam(dynamics.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        dynamics.data_loss(frames.expand(3, 200)).sum().backward()
        optimizer.step()
    mean, _ = dynamics(observation, action)
    assert ((mean - expected).square().mean((0, 1)).sqrt() < 0.15 * dynamics.target_std)[:2].all()
    choice = torch.randint(3, (200,))
    predicted, _ = dynamics.predict(observation, action, choice)
    torch.testing.assert_close(predicted, mean[choice, torch.arange(200)])
