"""The parts of World Models: sizes, and the likelihood and the samples of mixtures beside torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from lit_mbrl.losses import mixture_nll
from lit_mbrl.models import MDNRNN, VAE
from lit_mbrl.models.mdn_rnn import Prediction


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_as_many_as_in_the_paper_s_table() -> None:
    assert size(VAE()) == 4_348_547
    assert size(MDNRNN()) == 422_368


def test_images_become_codes_and_images_again() -> None:
    vae = VAE(depth=2, latent=5)
    image = torch.randint(256, (2, 3, 3, 64, 64), dtype=torch.uint8)
    mean, std = vae.encode(image)
    assert mean.shape == std.shape == (2, 3, 5)
    assert (vae.decode(mean).shape, bool((std > 0).all())) == ((2, 3, 3, 64, 64), True)
    torch.testing.assert_close(vae.encode(image.float() / 255)[0], mean)


def drawn(*shape: int) -> Prediction:
    logits, mean, log_std = torch.randn(3, *shape, dtype=torch.float64)
    return Prediction(logits.log_softmax(-1), mean, 0.3 * log_std, None, None)


def test_likelihood_is_torch_s_own() -> None:
    p = drawn(6, 4, 5)
    target = torch.randn(6, 4, dtype=torch.float64)
    theirs = MixtureSameFamily(Categorical(logits=p.log_weight), Normal(p.mean, p.log_std.exp())).log_prob(target)
    torch.testing.assert_close(mixture_nll(p.log_weight, p.mean, p.log_std, target), -theirs.mean(-1, keepdim=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_samples_at_a_temperature_are_of_torch_s_distribution(temperature: float) -> None:
    """Kolmogorov-Smirnov at n = 20 000: a right sampler fails with a probability of about 1e-6 each."""
    torch.manual_seed(0)
    p, n = drawn(1, 2, 5), 20_000
    many = Prediction(*(None if part is None else part.expand(n, -1, -1) for part in p))
    z = many.sample(torch.rand(n, 2), torch.randn(n, 2, dtype=torch.float64), temperature)
    std = p.log_std.exp() * math.sqrt(temperature)
    theirs = MixtureSameFamily(Categorical(logits=p.log_weight / temperature), Normal(p.mean, std))
    ranks = torch.arange(1, n + 1) / n
    for i in range(2):
        ordered = z[:, i].sort().values
        cdf = theirs.cdf(torch.stack([ordered, ordered], -1)[:, :])[:, i]
        assert (cdf - ranks).abs().max() < 2.7 / math.sqrt(n)


def test_one_step_at_a_time_is_the_whole_sequence() -> None:
    rnn = MDNRNN(4, 2, 8, 3, termination=True, reward=True).double()
    z, action = torch.randn(3, 6, 4, dtype=torch.float64), torch.randn(3, 6, 2, dtype=torch.float64)
    h, last = rnn(z, action)
    memory = rnn.start(3)
    for t in range(6):
        memory = rnn.step(z[:, t], action[:, t], memory)
        torch.testing.assert_close(memory.h, h[:, t])
    torch.testing.assert_close(memory, last)
    predicted = rnn.predict(h)
    assert predicted.mean.shape == (3, 6, 4, 3)
    assert predicted.termination is not None and predicted.termination.shape == (3, 6, 1)
