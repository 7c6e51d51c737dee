"""What PETS' ensemble reads and predicts."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.envs.spec import Features
from lit_mbrl.models import TaskEnsemble, fit_epochs
from lit_mbrl.training.model_fit import ModelFitter


def frames(count: int, observation_dim: int = 3) -> TensorDict:
    torch.manual_seed(0)
    following = {"observation": torch.randn(count, observation_dim), "reward": torch.randn(count, 1)}
    rows = {"observation": torch.randn(count, observation_dim), "action": torch.rand(count, 1), "next": following}
    return TensorDict(rows, [count])


def test_the_cheetah_s_features_are_the_paper_s() -> None:
    """Velocity is not read and predicted as it is; the pitch is read as sine and cosine; O is 18 and inputs are 24."""
    dynamics = TaskEnsemble(18, 6, Features(angles=(2,), absolute=(0,), unused=(0,)))
    assert dynamics.networks.weights[0].shape[1] == 24 and dynamics.outputs == 18
    observation, action = torch.randn(4, 18), torch.randn(4, 6)
    pitch = observation[:, 2:3]
    expected = torch.cat([pitch.sin(), pitch.cos(), observation[:, 1:2], observation[:, 3:], action], 1)
    torch.testing.assert_close(dynamics.features(observation, action), expected)


@pytest.mark.parametrize("predict_reward", [False, True])
@pytest.mark.parametrize("spec", [None, Features(angles=(1,)), Features(absolute=(0, 2), unused=(2,))])
def test_a_perfect_prediction_is_the_next_observation(spec: Features | None, predict_reward: bool) -> None:
    dynamics, batch = TaskEnsemble(3, 1, spec, predict_reward, hidden_sizes=[4]), frames(5)
    following, reward = dynamics.advance(batch["observation"], dynamics.targets(batch))
    torch.testing.assert_close(following, batch["next", "observation"])
    if predict_reward:
        torch.testing.assert_close(reward, batch["next", "reward"])
    else:
        assert reward is None
    assert dynamics(batch["observation"], batch["action"])[0].shape == (5, 5, 3 + predict_reward)
    for i in spec.absolute if spec else ():
        torch.testing.assert_close(dynamics.targets(batch)[:, i], batch["next", "observation"][:, i])


def test_the_likelihood_of_held_out_frames() -> None:
    """Networks that say N(0, 1) about changes: the squared changes' mean, since the log-variance is 0."""
    dynamics, batch = TaskEnsemble(3, 1, hidden_sizes=[4]), frames(50)
    with torch.no_grad():
        dynamics.min_log_var.fill_(-50.0)
        dynamics.max_log_var.fill_(50.0)
        for weight in dynamics.networks.weights:
            weight.zero_()
    change = batch["next", "observation"] - batch["observation"]
    assert dynamics.mean_nll(batch).item() == pytest.approx(change.square().mean().item(), rel=1e-5)


def test_a_fit_passes_over_all_data_so_often() -> None:
    dynamics, batch = TaskEnsemble(3, 1, hidden_sizes=[4]), frames(70)
    sizes, epochs = [], []

    def step(loss_of: object, part: TensorDict, whole: bool) -> torch.Tensor:
        sizes.append((tuple(part.shape), whole))
        return loss_of(part).detach()

    options = {"epochs": 3, "batch_size": 32, "on_epoch": lambda epoch, loss: epochs.append((epoch, loss.ndim))}
    assert fit_epochs(dynamics.objective(1e-3), batch, step, **options) == 9
    assert sizes == [((5, 32), True), ((5, 32), True), ((5, 6), False)] * 3
    assert epochs == [(1, 0), (2, 0), (3, 0)]
    inputs = torch.cat([batch["observation"], batch["action"]], 1)
    torch.testing.assert_close(dynamics.input_mean, inputs.mean(0))  # the scaler has seen all of them


def test_the_fit_learns_a_pendulum_s_angle_through_its_features() -> None:
    """The change is the sine of an angle far outside of any range that has been seen: only features can know."""
    torch.manual_seed(0)
    dynamics = TaskEnsemble(1, 1, Features(angles=(0,)), hidden_sizes=[32])
    angle = (torch.rand(600, 1) - 0.5) * 2 * math.pi
    following = {"observation": angle + angle.sin(), "reward": torch.zeros(600, 1)}
    batch = TensorDict({"observation": angle, "action": torch.zeros(600, 1), "next": following}, [600])
    fitter = ModelFitter(epochs=40, batch_size=32)
    fitter.fit_epochs(dynamics.objective(3e-3), dynamics, batch)
    far = angle + 20 * math.pi
    mean, _ = dynamics(far, torch.zeros_like(far))
    assert (mean.mean(0) - angle.sin()).abs().mean() < 0.05
