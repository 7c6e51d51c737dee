"""Divergences between the policies of a teacher and of a student, unreduced `[..., 1]`.

In the direction of the lecture on learned world models, `D_KL(student || teacher)`, the student gives no probability to
what the teacher does not do; in that of Rusu et al. 2015 (arXiv 1511.06295v2, eq. 3), `D_KL(teacher || student)`, it
gives some to all that the teacher does. Normals before a tanh have the divergence of the actions after it: a bijection
changes none.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def categorical_kl(log_prob: Float[Tensor, "*B A"], other_log_prob: Float[Tensor, "*B A"]) -> Float[Tensor, "*B 1"]:
    """`D_KL(p || q) = sum_a p(a) (log p(a) - log q(a))` of log-probabilities; 0 where `p` is 0."""
    return (log_prob.exp() * (log_prob - other_log_prob)).sum(-1, keepdim=True)


def diagonal_normal_kl(
    parameters: Float[Tensor, "*B P"], other_parameters: Float[Tensor, "*B P"]
) -> Float[Tensor, "*B 1"]:
    """`D_KL(N(m, s) || N(m', s'))` of normals `[m, log s]` with `P = 2 A`.

    Written without the cancellation where they nearly agree: `log(s' / s) + (s^2 + (m - m')^2) / (2 s'^2) - 1 / 2`.
    """
    (mean, log_std), (other_mean, other_log_std) = parameters.chunk(2, -1), other_parameters.chunk(2, -1)
    log_ratio = log_std - other_log_std
    distance = (mean - other_mean) * (-other_log_std).exp()
    return (0.5 * ((2.0 * log_ratio).expm1() + distance.square()) - log_ratio).sum(-1, keepdim=True)
