"""Losses: pure functions of tensors and floats, unreduced `[..., 1]` out; the caller reduces."""

from __future__ import annotations

from lit_mbrl.losses.classification import class_loss, distillation_loss, frame_loss
from lit_mbrl.losses.clip import (
    approx_kl,
    clip_fraction,
    clip_objective,
    clipped_value_loss,
    standardized,
    value_loss,
)
from lit_mbrl.losses.deterministic import dpg_loss, smoothed_action, td_target
from lit_mbrl.losses.distillation import categorical_kl, diagonal_normal_kl
from lit_mbrl.losses.elbo import (
    discounted_weights,
    free_nats,
    free_nats_of_steps,
    gaussian_kl,
    jeffreys,
    pixel_loss,
    smooth_l1,
    standard_normal_kl,
    unit_gaussian_loss,
)
from lit_mbrl.losses.ensemble import bound_penalty, bounded_log_variance, ensemble_squared_error, gaussian_nll
from lit_mbrl.losses.max_entropy import max_entropy_advantage
from lit_mbrl.losses.mdn import mixture_nll, vae_loss
from lit_mbrl.losses.normalized_advantage import precision_noise, precision_scale, quadratic_advantage
from lit_mbrl.losses.policy_gradient import policy_gradient_loss
from lit_mbrl.losses.prioritized import (
    behaviour_loss,
    entropy_priority,
    gaussian_log_prob,
    importance_weight,
    normalized_by_max,
    normalized_by_mean,
    raw_action,
    sampling_mass,
    weighted,
)
from lit_mbrl.losses.q_learning import action_value, double_q_value, huber_loss, td_priority
from lit_mbrl.losses.saturating import saturating_cost, saturating_cost_moments
from lit_mbrl.losses.soft_q import q_loss, soft_policy_loss, soft_q_target, soft_value, temperature_loss
from lit_mbrl.losses.state_entropy import expectation_over_future, future_weights
from lit_mbrl.losses.temporal_difference_model import goal_score, goal_value, tdm_target
from lit_mbrl.losses.trust_region import surrogate_objective
from lit_mbrl.losses.value_gradient import value_gradient_loss
from lit_mbrl.losses.world_model import dynamics_loss, reward_loss, termination_loss

__all__ = [
    "action_value",
    "approx_kl",
    "behaviour_loss",
    "bound_penalty",
    "bounded_log_variance",
    "categorical_kl",
    "class_loss",
    "clip_fraction",
    "clip_objective",
    "clipped_value_loss",
    "diagonal_normal_kl",
    "discounted_weights",
    "distillation_loss",
    "double_q_value",
    "dpg_loss",
    "dynamics_loss",
    "ensemble_squared_error",
    "entropy_priority",
    "expectation_over_future",
    "frame_loss",
    "free_nats",
    "free_nats_of_steps",
    "future_weights",
    "gaussian_kl",
    "gaussian_log_prob",
    "gaussian_nll",
    "goal_score",
    "goal_value",
    "huber_loss",
    "importance_weight",
    "jeffreys",
    "max_entropy_advantage",
    "mixture_nll",
    "normalized_by_max",
    "normalized_by_mean",
    "pixel_loss",
    "policy_gradient_loss",
    "precision_noise",
    "precision_scale",
    "q_loss",
    "quadratic_advantage",
    "raw_action",
    "reward_loss",
    "sampling_mass",
    "saturating_cost",
    "saturating_cost_moments",
    "smooth_l1",
    "smoothed_action",
    "soft_policy_loss",
    "soft_q_target",
    "soft_value",
    "standard_normal_kl",
    "standardized",
    "surrogate_objective",
    "td_priority",
    "td_target",
    "tdm_target",
    "temperature_loss",
    "termination_loss",
    "unit_gaussian_loss",
    "vae_loss",
    "value_gradient_loss",
    "value_loss",
    "weighted",
]
