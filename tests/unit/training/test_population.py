"""Populations side by side: dreams one at a time are the batch's, and returns are the same whoever steps."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mbrl.envs import EnvConfig, PixelConfig, VectorEnv
from lit_mbrl.models import MDNRNN, VAE
from lit_mbrl.training.population import Controllers, Player, antithetic_rows, dream_returns, play_returns


def test_both_halves_of_a_population_meet_the_same_random_numbers() -> None:
    assert antithetic_rows(4, 2).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert antithetic_rows(3, 1).tolist() == [0, 1, 0]


def test_a_dream_alone_is_its_row_of_the_batch() -> None:
    torch.manual_seed(0)
    rnn = MDNRNN(4, 2, 8, 3, termination=True, reward=True).double()
    with torch.no_grad():
        rnn.output.bias[-2] = -0.2
        rnn.output.weight[-2] *= 3
    rows, steps = 10, 7
    controllers = Controllers(torch.randn(rows, 2 * (4 + 8 + 1), dtype=torch.float64), 2, False, True)
    z = torch.randn(rows, 4, dtype=torch.float64)
    uniform, noise = torch.rand(steps, rows, 4).double(), torch.randn(steps, rows, 4).double()

    def play(part: slice) -> Tensor:
        u, n = iter(uniform[:, part]), iter(noise[:, part])
        return dream_returns(rnn, controllers.of(part), z[part], lambda: next(u), lambda: next(n), steps, 1.2)

    batch = play(slice(None))
    torch.testing.assert_close(torch.cat([play(slice(i, i + 1)) for i in range(rows)]), batch)

    # A plain loop over steps, without any of this code.
    for i in range(rows):
        h = c = torch.zeros(1, 8, dtype=torch.float64)
        state, total = z[i : i + 1], 0.0
        for t in range(steps):
            w = controllers.weights[i]
            action = (torch.cat([state, h], -1) @ w[:24].view(2, 12).T + w[24:]).tanh()
            gates = torch.cat([state, action, torch.ones_like(state[:, :1])], -1) @ rnn.lstm.weight_ih_l0.T
            a, b, g, o = (gates + h @ rnn.lstm.weight_hh_l0.T).chunk(4, -1)
            c = b.sigmoid() * c + a.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            out = rnn.output(h)
            total += out[0, -1].item()
            if out[0, -2] > 0:
                break
            logits, mean, log_std = (x.view(4, 3) for x in out[0, :-2].split(12))
            weights = (logits / 1.2).softmax(-1)
            state = torch.empty(1, 4, dtype=torch.float64)
            for j in range(4):
                k = int((uniform[t, i, j] >= weights[j].cumsum(-1)[:-1]).sum())
                state[0, j] = mean[j, k] + log_std[j, k].exp() * noise[t, i, j] * 1.2**0.5
        torch.testing.assert_close(batch[i].item(), total)


def test_returns_are_the_same_whatever_the_number_of_workers_and_copies() -> None:
    torch.manual_seed(0)
    vae, rnn = VAE(3, 4, 2), MDNRNN(4, 1, 8, 2)
    controllers = Controllers(torch.randn(5, 4 + 8 + 1), 1, False, True)
    found = []
    for copies, workers in ((2, False), (2, True), (3, False), (7, False)):
        config = EnvConfig("Pendulum-v1", max_episode_steps=6, workers=workers, pixels=PixelConfig())
        env = VectorEnv(config, 0, num_envs=copies)
        try:
            again = [play_returns(env, Player(vae.encode, rnn), controllers, [3, 4, 5, 3, 9]) for _ in range(2)]
        finally:
            env.close()
        assert [steps for _, steps in again] == [30, 30]
        assert torch.equal(again[0][0], again[1][0])
        found.append(again[0][0])
    assert torch.equal(found[0], found[1])
    for other in found[2:]:  # another batch of the convolutions rounds differently
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-4)
