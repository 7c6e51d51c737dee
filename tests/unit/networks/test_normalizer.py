from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_mbrl.networks import RunningNormalizer

STATISTICS = ("count", "mean", "m2")
DATA = 1e3 + 3.0 * np.random.default_rng(0).normal(size=(257, 4))  # a mean far from zero: cancellation would show


@pytest.mark.parametrize("chunks", [[257], [1] * 257, [1, 100, 0, 56, 100], [256, 1]])
def test_equals_numpy_irrespective_of_chunking(chunks: list[int]) -> None:
    normalizer = RunningNormalizer(4)
    for rows in np.split(DATA, np.cumsum(chunks)[:-1]):
        normalizer.update(torch.as_tensor(rows))
    mean, std = normalizer.mean_std(torch.float64)
    np.testing.assert_allclose(mean.numpy(), DATA.mean(0), rtol=1e-13)
    np.testing.assert_allclose(std.numpy(), DATA.std(0), rtol=1e-11)
    assert normalizer.count.item() == 257
    assert [t.dtype for t in normalizer.mean_std()] == [torch.float32, torch.float32]


def test_leading_axes_are_flattened() -> None:
    flat, nested = RunningNormalizer(4), RunningNormalizer(4)
    x = torch.randn(6, 5, 4)
    flat.update(x.reshape(30, 4))
    nested.update(x)
    assert all(torch.equal(getattr(flat, name), getattr(nested, name)) for name in STATISTICS)


def test_std_is_clipped() -> None:
    normalizer = RunningNormalizer(3, std_bounds=(0.1, 10.0))
    normalizer.update(torch.tensor([[1.0, 1.0, -100.0], [1.0, 2.0, 100.0]]))
    assert normalizer.mean_std()[1].tolist() == pytest.approx([0.1, 0.5, 10.0])


def test_identity_before_data() -> None:
    normalizer = RunningNormalizer(3, std_bounds=(2.0, 10.0))
    x = torch.randn(5, 3)
    assert torch.equal(normalizer(x), x) and torch.equal(normalizer.inverse(x), x)


def test_forward_inverse_and_dtype() -> None:
    normalizer = RunningNormalizer(4)
    normalizer.update(torch.as_tensor(DATA))
    x = torch.as_tensor(DATA)
    expected = (DATA - DATA.mean(0)) / DATA.std(0)
    np.testing.assert_allclose(normalizer(x).numpy(), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(normalizer.inverse(normalizer(x)), x, atol=1e-10, rtol=0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert normalizer(x.to(dtype)).dtype == dtype and normalizer.inverse(x.to(dtype)).dtype == dtype
    # Half precision in, but the difference to the mean is taken in float32 and keeps its sign and size.
    low = x.to(torch.bfloat16)
    torch.testing.assert_close(normalizer(low).double(), normalizer(low.double()), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("cast", ["float", "half", "bfloat16", "to_bfloat16", "to_both", "parent"])
def test_statistics_survive_casts_in_float64(cast: str) -> None:
    normalizer = RunningNormalizer(4)
    normalizer.update(torch.as_tensor(DATA))
    before = {name: getattr(normalizer, name).clone() for name in STATISTICS}
    parent = torch.nn.Sequential(torch.nn.Linear(4, 4), normalizer)
    if cast == "to_bfloat16":
        normalizer.to(torch.bfloat16)
    elif cast == "to_both":
        normalizer.to("cpu", torch.float16)
    elif cast == "parent":
        parent.half()
        assert parent[0].weight.dtype == torch.float16
    else:
        assert getattr(normalizer, cast)() is normalizer
    for name, value in before.items():
        after = getattr(normalizer, name)
        assert after.dtype == torch.float64 and torch.equal(after, value)
        assert normalizer.get_buffer(name) is after


def test_device_moves_reach_the_statistics() -> None:
    normalizer = RunningNormalizer(4).to("meta", torch.bfloat16)
    assert all(getattr(normalizer, name).device.type == "meta" for name in STATISTICS)
    assert all(getattr(normalizer, name).dtype == torch.float64 for name in STATISTICS)


def test_state_dict_round_trip_and_nothing_to_train() -> None:
    normalizer, other = RunningNormalizer(4), RunningNormalizer(4)
    normalizer.update(torch.as_tensor(DATA))
    assert list(normalizer.parameters()) == []
    assert sorted(normalizer.state_dict()) == sorted(STATISTICS)
    other.load_state_dict(normalizer.state_dict())
    more = torch.randn(10, 4)
    normalizer.update(more)
    other.update(more)
    assert all(torch.equal(getattr(normalizer, name), getattr(other, name)) for name in STATISTICS)


def test_gradient_flows_to_the_input_only() -> None:
    normalizer = RunningNormalizer(4)
    normalizer.update(torch.as_tensor(DATA))
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalizer, (x,))
    normalizer.update(x)  # an update of data that carries a graph keeps none
    assert not any(getattr(normalizer, name).requires_grad for name in STATISTICS)


def test_what_is_clipped_is_told() -> None:
    normalizer = RunningNormalizer(4)
    scales = torch.tensor([0.0, 1e-3, 1.0, 1e6])
    normalizer.update(torch.tensor([[1.0], [-1.0]]) * scales)
    assert normalizer.clipped() == [(1, pytest.approx(1e-3)), (3, 1e6)]
    assert normalizer(scales)[3] == 1e5
    wide = RunningNormalizer(4, (1e-6, 1e7))
    wide.update(torch.tensor([[1.0], [-1.0]]) * scales)
    assert wide.clipped() == [] and wide(scales)[3] == 1.0
