"""An ensemble whose members contradict each other, and small runs of agents that plan."""

from __future__ import annotations

from typing import Any

import torch

from lit_mbrl.algorithms import PETS, POPLINA, POPLINP
from lit_mbrl.models import TaskEnsemble
from lit_mbrl.planners import TruncatedCEM


def contradicting(std: float = 1e-3, members: int = 2, predict_reward: bool = True) -> TaskEnsemble:
    """Member 0 adds 1 to the observation, the last one takes 1 off, those between add less."""
    dynamics = TaskEnsemble(1, 1, None, predict_reward, members, [4])
    log_var = 2 * torch.tensor(std).log()
    with torch.no_grad():
        dynamics.min_log_var.fill_(-30.0)
        dynamics.max_log_var.fill_(30.0)
        for weight, bias in zip(dynamics.networks.weights, dynamics.networks.biases, strict=True):
            weight.zero_()
            bias.zero_()
        dynamics.networks.biases[-1][:, :, dynamics.outputs :] = log_var
        dynamics.networks.biases[-1][:, 0, 0] = torch.linspace(1.0, -1.0, members)
    return dynamics


SMALL: dict[str, Any] = {"hidden_sizes": [8], "particles": 2, "num_members": 2, "model_epochs": 2}


def planner(**options: Any) -> TruncatedCEM:
    return TruncatedCEM(**({"horizon": 4, "num_candidates": 12, "num_elites": 3, "iterations": 2} | options))


def make_pets(**options: Any) -> PETS:
    return PETS(**({"planner": planner()} | SMALL | options))


def make_poplin(name: str, **options: Any) -> POPLINA | POPLINP:
    """POPLIN by its method: INIT, REPLAN, SEP or UNI."""
    search = planner(bound=None, min_variance=0.0)
    small = {"hidden_sizes": [8], "num_members": 2, "model_epochs": 2, "policy_hidden_sizes": [5], "policy_epochs": 3}
    kind = POPLINA if name in ("INIT", "REPLAN") else POPLINP
    return kind(**({"planner": search, "method": name} | small | options))
