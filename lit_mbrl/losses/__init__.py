"""Losses: pure functions of tensors and floats, unreduced `[..., 1]` out; the caller reduces."""

from __future__ import annotations

from lit_mbrl.losses.deterministic import dpg_loss, smoothed_action, td_target
from lit_mbrl.losses.ensemble import bound_penalty, bounded_log_variance, ensemble_squared_error, gaussian_nll
from lit_mbrl.losses.soft_q import q_loss, soft_policy_loss, soft_q_target, soft_value, temperature_loss
from lit_mbrl.losses.value_gradient import value_gradient_loss
from lit_mbrl.losses.world_model import dynamics_loss, reward_loss, termination_loss

__all__ = [
    "bound_penalty",
    "bounded_log_variance",
    "dpg_loss",
    "dynamics_loss",
    "ensemble_squared_error",
    "gaussian_nll",
    "q_loss",
    "reward_loss",
    "smoothed_action",
    "soft_policy_loss",
    "soft_q_target",
    "soft_value",
    "td_target",
    "temperature_loss",
    "termination_loss",
    "value_gradient_loss",
]
