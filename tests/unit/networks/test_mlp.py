from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_mbrl.networks import MLP, QEnsemble, mlp, orthogonal_
from lit_mbrl.networks.mlp import call_layers
from lit_mbrl.training import fast_path


def test_mlp_is_linear_activation_linear() -> None:
    net = MLP(3, [4, 5], 2, activation=nn.Tanh)
    assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    x = torch.randn(6, 7, 3)
    expected = net[4](torch.tanh(net[2](torch.tanh(net[0](x)))))
    assert torch.equal(net(x), expected) and net(x).shape == (6, 7, 2)


def test_mlp_without_hidden_layers_is_one_linear_layer() -> None:
    assert [type(layer) for layer in MLP(3, [], 2)] == [nn.Linear]


def test_orthogonal_weights_zero_bias_and_gain() -> None:
    net = orthogonal_(MLP(8, [6], 3), gain=2.0)
    for layer in net:
        if isinstance(layer, nn.Linear):
            gram = layer.weight @ layer.weight.T
            torch.testing.assert_close(gram, 4.0 * torch.eye(layer.out_features), atol=1e-5, rtol=0)
            assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_q_ensemble_stacks_independent_members() -> None:
    critic = QEnsemble(3, 2, [8], num=3)
    observation, action = torch.randn(4, 5, 3), torch.randn(4, 5, 2)
    q = critic(observation, action)
    assert q.shape == (3, 4, 5, 1)
    for index, member in enumerate(critic.members):
        assert torch.equal(q[index], member(torch.cat([observation, action], -1)))
    assert (q[0] - q[1]).abs().min() > 0
    q[1].sum().backward()
    touched = [any(p.grad.abs().sum() > 0 for p in member.parameters()) for member in critic.members]
    assert touched == [False, True, False]


def test_the_first_of_an_ensemble_is_asked_alone() -> None:
    critic, x, u = QEnsemble(3, 2, [8], num=3), torch.randn(4, 3), torch.randn(4, 2)
    assert torch.equal(critic.first(x, u), critic(x, u)[0])
    critic.first(x, u).sum().backward()
    assert [member[0].weight.grad is None for member in critic.members] == [False, True, True]


@pytest.mark.parametrize("bypass", [True, False])
def test_hooks_of_a_layer_and_of_all_are_called(bypass: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_mbrl.networks.mlp.apply_layers", fast_path.apply_layers if bypass else call_layers)
    net, x, seen = MLP(3, [4], 2), torch.randn(5, 3), []
    plain = net(x)
    own = net[0].register_forward_hook(lambda layer, inputs, output: seen.append(output))
    assert torch.equal(net(x), plain) and len(seen) == 1
    own.remove()
    everywhere = nn.modules.module.register_module_forward_hook(lambda layer, inputs, output: seen.append(output))
    net(x)
    everywhere.remove()
    assert len(seen) == 1 + 4  # three layers and the perceptron
    net(x)
    assert len(seen) == 5


def test_layers_and_their_gradients_are_the_same_past_module_call() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    layers, x = [nn.Linear(3, 4), nn.SiLU(), Doubled(4, 4), nn.Linear(4, 2, bias=False)], torch.randn(5, 3)
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    called, bypassed = call_layers(x, layers), fast_path.apply_layers(x, layers)
    assert torch.equal(called, bypassed)
    gradients = [torch.autograd.grad(result.square().sum(), parameters) for result in (called, bypassed)]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_the_switch_of_the_bypass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "apply_layers", call_layers)
    for on, expected in ((True, fast_path.apply_layers), (False, call_layers)):
        fast_path.use_layers(on)
        assert mlp.apply_layers is expected
