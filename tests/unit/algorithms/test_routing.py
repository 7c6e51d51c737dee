"""Which parameters receive gradient from which loss. Targets never do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.envs import Spec
from lit_mbrl.training.algorithm import Update
from tests.helpers.frames import ALGORITHMS, make_batch, make_given

MODEL = {"world_model.dynamics", "world_model.reward_model", "world_model.termination_model"}
MODEL_UPDATES = {
    "reward": {"world_model.reward_model"},
    "termination": {"world_model.termination_model"},
    "dynamics": {"world_model.dynamics"},
}
ENSEMBLE = {"world_model.dynamics", "world_model.termination_model"}
TEMPERATURE = {"alpha": {"log_alpha"}}
MODEL_FREE = {"critic": {"critic"}, "actor": {"actor", "critic"}}

# What each loss depends on differentiably. `Algorithm.gradient_step` then trains the update's own parameters only.
REACHES = {
    "sac": {**MODEL_FREE, **TEMPERATURE},
    "td3": MODEL_FREE,
    "ddpg": MODEL_FREE,
    "naf": {"critic": {"critic"}},
    "sac_svg": {"critic": {"critic"}, "actor": {"actor", "critic"} | MODEL, **TEMPERATURE, **MODEL_UPDATES},
    "sac_svg_code": {"critic": {"critic"}, "actor": {"actor", "critic"} | MODEL, **TEMPERATURE, **MODEL_UPDATES},
    "sac_svg_ensemble": {
        "critic": {"critic"},
        "actor": {"actor", "critic"} | ENSEMBLE,
        **TEMPERATURE,
        "termination": {"world_model.termination_model"},
        "dynamics": {"world_model.dynamics"},
    },
    "ivg": {"critic": {"critic"}, "actor": {"actor", "critic"} | MODEL, **MODEL_UPDATES},
    "mbpg": {"actor": {"actor"} | MODEL, **MODEL_UPDATES},
    "mve": {**MODEL_FREE, **TEMPERATURE, **MODEL_UPDATES},
    "steve": {**MODEL_UPDATES, **MODEL_FREE},
    "steve_sac": {**MODEL_UPDATES, **MODEL_FREE, **TEMPERATURE},
    "mve_ddpg": {**MODEL_UPDATES, **MODEL_FREE},
    "mve_svg": {"critic": {"critic"}, "actor": {"actor", "critic"} | MODEL, **TEMPERATURE, **MODEL_UPDATES},
}


def part(name: str) -> str:
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "world_model" else pieces[0]


def reached(algorithm: Algorithm, update: Update) -> set[str]:
    algorithm.zero_grad(set_to_none=True)
    update.compute_loss(make_batch(algorithm, update.batch), make_given()).backward()
    return {part(name) for name, p in algorithm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_losses_reach_what_the_papers_say(name: str) -> None:
    algorithm = ALGORITHMS[name]()
    algorithm.configure(Spec("made up", 3, 2))
    found = {update.name: reached(algorithm, update) for update in algorithm.update_list}
    assert found == REACHES[name]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_update_moves_its_own_parameters_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = ALGORITHMS[name]()
    algorithm.configure(Spec("made up", 3, 2))
    monkeypatch.setattr(type(algorithm), "train_steps", 1)
    monkeypatch.setattr(algorithm, "manual_backward", lambda loss, **kwargs: loss.backward(**kwargs))
    for update in algorithm.update_list:
        before = {
            key: value.clone() for key, value in algorithm.state_dict().items() if isinstance(value, torch.Tensor)
        }
        optimizer = torch.optim.Adam(update.parameters(), lr=update.lr)
        plain = SimpleNamespace(optimizer=optimizer, step=optimizer.step)  # in the place of Lightning's
        algorithm.gradient_step(update, plain, make_batch(algorithm, update.batch), make_given())
        own = {id(p) for p in update.parameters()}
        trained = {key for key, p in algorithm.named_parameters() if id(p) in own}
        after = algorithm.state_dict()
        moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
        assert moved and moved <= trained, update.name
        assert not [p for p in algorithm.parameters() if p.grad is not None and id(p) not in own]
        algorithm.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_targets_start_equal_and_take_no_gradient(name: str) -> None:
    algorithm = ALGORITHMS[name]()
    algorithm.configure(Spec("made up", 3, 2))
    trained = {id(p) for update in algorithm.update_list for p in update.parameters()}
    for online, target in algorithm.targets():
        for p, q in zip(online.parameters(), target.parameters(), strict=True):
            assert torch.equal(p, q) and p is not q
            assert not q.requires_grad and id(q) not in trained
