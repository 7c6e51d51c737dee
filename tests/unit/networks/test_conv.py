"""Encoder and decoder of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lit_mbrl.networks import ConvDecoder, ConvEncoder, glorot_, normalize_image, quantize_image, to_uint8


def test_images_survive_the_way_to_the_network_and_back() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    unit = normalize_image(image)
    assert unit.dtype == torch.float32 and unit.min() == -0.5 and unit.max() == 0.5
    assert torch.equal(to_uint8(unit), image) and image.max() == 255
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_sizes_are_dreamer_s() -> None:
    encoder, decoder = ConvEncoder(3, 32), ConvDecoder(230, 3, 32)
    assert [layer.out_channels for layer in encoder if isinstance(layer, nn.Conv2d)] == [32, 64, 128, 256]
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, 1024) and encoder.out_features == 1024
    transposed = [layer for layer in decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.kernel_size[0]) for layer in transposed] == [
        (1024, 5),
        (128, 5),
        (64, 6),
        (32, 6),
    ]
    assert decoder(torch.randn(2, 230)).shape == (2, 3, 64, 64)


def test_transposed_convolutions_computed_otherwise_are_the_same() -> None:
    decoder, features = ConvDecoder(9, 3, 2), torch.randn(4, 9)
    plain = decoder.last(decoder.layers(F.relu(decoder.first(decoder.dense(features).view(4, 64, 1, 1)))))
    torch.testing.assert_close(decoder(features), plain)
    theirs = torch.autograd.grad(plain.square().sum(), list(decoder.parameters()))
    ours = torch.autograd.grad(decoder(features).square().sum(), list(decoder.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_glorot_s_bounds_and_orthogonal_recurrence() -> None:
    layer, cell = nn.Linear(30, 70), nn.GRUCell(5, 4)
    glorot_(nn.ModuleList([layer, cell]))
    assert layer.weight.abs().max() <= (6 / 100) ** 0.5 and (layer.bias == 0).all()
    torch.testing.assert_close(cell.weight_hh.T @ cell.weight_hh, torch.eye(4))


def test_many_images_are_the_same_as_few_at_a_time() -> None:
    encoder, decoder = ConvEncoder(3, 2), ConvDecoder(9, 3, 2)
    image, features = torch.randn(230, 3, 64, 64), torch.randn(230, 9)
    torch.testing.assert_close(encoder(image), torch.cat([encoder(image[:90]), encoder(image[90:])]))
    torch.testing.assert_close(decoder(features), torch.cat([decoder(features[:90]), decoder(features[90:])]))


def test_five_bits_of_colour() -> None:
    image = torch.arange(256, dtype=torch.uint8)
    middle = quantize_image(image, 5, dither=False)
    assert len(middle.unique()) == 32 and (middle - normalize_image(image)).abs().max() < 1 / 64 + 1 / 255
    noisy = quantize_image(image, 5, dither=True)
    assert ((noisy - middle).abs() <= 1 / 64 + 1e-6).all() and not torch.equal(noisy, middle)


def test_half_precision_is_close_and_the_last_layer_is_not_rounded() -> None:
    torch.manual_seed(0)
    decoder, features = ConvDecoder(9, 3, 2), torch.randn(4, 9)
    whole = decoder(features)
    with torch.autocast("cpu", torch.bfloat16):
        half = decoder(features)
        assert not torch.equal(half, whole) and half.dtype == torch.float32
        torch.testing.assert_close(half, whole, rtol=0.0, atol=0.02 * whole.detach().abs().max().item())
        nn.init.zeros_(decoder.last.weight)
        nn.init.constant_(decoder.last.bias, 0.3003)
        assert (decoder(features) == torch.tensor(0.3003)).all()
    half.sum().backward()
    assert all(weight.grad.dtype == torch.float32 and weight.grad.any() for weight in decoder.parameters())
