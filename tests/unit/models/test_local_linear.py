"""Local linear dynamics: they recover a linear system, one for each step, and its noise."""

from __future__ import annotations

import torch

from lit_mbrl.models.local_linear import fit_local_linear


def episodes(count: int, steps: int, noise: float, varying: bool) -> tuple[torch.Tensor, ...]:
    """A, B, c `[T, ...]` and states, actions, next states `[E, T, ...]` of a system with them."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    own = steps if varying else 1
    a, b, c = (x.expand(steps, *x.shape[1:]) for x in (0.4 * draw(own, 3, 3), draw(own, 3, 2), draw(own, 3)))
    x, states, actions, following = draw(count, 3), [], [], []
    for t in range(steps):
        u = draw(count, 2)
        y = x @ a[t].T + u @ b[t].T + c[t] + noise * draw(count, 3)
        states, actions, following = [*states, x], [*actions, u], [*following, y]
        x = y
    return a, b, c, torch.stack(states, 1), torch.stack(actions, 1), torch.stack(following, 1)


def test_a_time_varying_linear_system_is_recovered() -> None:
    a, b, c, *data = episodes(12, 5, 0.0, varying=True)
    model = fit_local_linear(*data, ridge=1e-12)
    for found, true in ((model.state, a), (model.action, b), (model.offset, c)):
        torch.testing.assert_close(found, true, rtol=1e-6, atol=1e-6)
    assert model.covariance.abs().max() < 1e-12
    states, actions, following = data
    step = torch.arange(5).repeat(12)
    predicted = model.predict(step, states.flatten(0, 1), actions.flatten(0, 1))
    torch.testing.assert_close(predicted, following.flatten(0, 1), rtol=1e-6, atol=1e-6)


def test_neighbouring_steps_stand_in_for_missing_episodes() -> None:
    a, b, c, *data = episodes(2, 20, 0.0, varying=False)  # two rows for six numbers
    model = fit_local_linear(*data, window=4, ridge=1e-12)
    for found, true in ((model.state, a), (model.action, b), (model.offset, c)):
        torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-5)


def test_the_covariance_is_the_noise_s() -> None:
    _, _, _, *data = episodes(20_000, 2, 0.3, varying=True)
    model = fit_local_linear(*data)
    torch.testing.assert_close(model.covariance, 0.09 * torch.eye(3).double().expand(2, 3, 3), rtol=0.05, atol=3e-3)


def test_steps_after_the_last_have_its_dynamics() -> None:
    *_, states, actions, following = episodes(12, 3, 0.0, varying=True)
    model = fit_local_linear(states, actions, following)
    last = [model.predict(torch.full((12,), t), states[:, 2], actions[:, 2]) for t in (2, 9)]
    assert torch.equal(*last)


def test_what_is_behind_the_end_of_an_episode_does_not_count() -> None:
    a, b, c, *data = episodes(12, 5, 0.0, varying=True)
    lengths = torch.tensor([5, 3] * 6)
    for part in data:
        part[1::2, 3:] = torch.nan
    model = fit_local_linear(*data, ridge=1e-12, lengths=lengths)
    for found, true in ((model.state, a), (model.action, b), (model.offset, c)):
        torch.testing.assert_close(found[:3], true[:3], rtol=1e-6, atol=1e-6)
    half = fit_local_linear(*(part[::2] for part in data), ridge=1e-12)
    torch.testing.assert_close(model.state[3:], half.state[3:], rtol=0, atol=1e-12)
