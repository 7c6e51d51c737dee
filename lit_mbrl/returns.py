"""Returns of imagined rollouts: SVG (Amos et al. arXiv 2008.12775v3), MVE (Feinberg et al. arXiv 1803.00101) and
lambda-returns (Dreamer, Hafner et al. arXiv 1912.01603v3).

And of real ones: generalised advantages (Schulman et al. arXiv 1506.02438v6), `N` environments, `T` steps.

`B` batch, `H` imagined steps; `r_t` and `d_t` (termination probability) for `t < H`, `log pi_t` for `t <= H`, unless a
function says otherwise. All is differentiable in every tensor but the temperature `alpha`, which is a constant here and
detached.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def survival(termination_prob: Float[Tensor, "B H 1"]) -> Float[Tensor, "B H+1 1"]:
    """Probability of being alive before step `t`: `s_t = prod_{i<t} (1 - d_i)`, `s_0 = 1`."""
    alive = termination_prob.new_ones(termination_prob.shape[0], 1)
    alives = [alive]
    # A loop, not cumprod: cumprod's backward asks whether any factor is zero, which waits for the device.
    for stays in (1.0 - termination_prob).unbind(1):
        alive = alive * stays
        alives.append(alive)
    return torch.stack(alives, dim=1)


def value_expansion(
    reward: Float[Tensor, "B H 1"],
    log_prob: Float[Tensor, "B H+1 1"],
    terminal_q: Float[Tensor, "B 1"] | None,
    alpha: float | Float[Tensor, ""],
    gamma: float,
    survival: Float[Tensor, "B H+1 1"],
) -> Float[Tensor, "B 1"]:
    """`sum_{t<H} gamma^t s_t (r_t - alpha log pi_t) + gamma^H s_H (Q - alpha log pi_H)`: SVG eq. 3 with eq. 2 and 6.

    The paper prints neither the discount nor a mask. The mask is derived: `s_t` is the probability that step `t`
    happens at all, so it weighs that step's reward and entropy alike. The public code masks otherwise, see
    `value_expansion_reference`. Stop-gradient: `alpha`.

    Args:
        terminal_q: `Q(x_H, u_H)`, the least of the critics. None: no terminal term and no entropy of the unused `u_H`,
            the pure model-based policy gradient.
        survival: of `survival(termination_prob)`; ones where nothing terminates.
    """
    horizon = reward.shape[1]
    alpha = alpha.detach() if isinstance(alpha, Tensor) else alpha
    weight = _discounts(gamma, reward) * survival
    value = (weight[:, :horizon] * (reward - alpha * log_prob[:, :horizon])).sum(1)
    if terminal_q is None:
        return value
    return value + weight[:, horizon] * (terminal_q - alpha * log_prob[:, horizon])


def value_expansion_reference(
    reward: Float[Tensor, "B H 1"],
    log_prob: Float[Tensor, "B H+1 1"],
    terminal_q: Float[Tensor, "B 1"] | None,
    alpha: float | Float[Tensor, ""],
    gamma: float,
    termination_prob: Float[Tensor, "B ends 1"],
) -> Float[Tensor, "B 1"]:
    """The same value as SVG's public code computes it, `c_t = prod_{i<=t} (1 - d_i)`.

    `(sum_{t<H} gamma^t (c_t r_t - alpha log pi_t) + gamma^H (c_H Q - alpha log pi_H)) / (H + 1)`: the mask includes the
    current step, so a step predicted to terminate loses its own reward, and the last one its Q; entropies are not
    masked; the sum is divided by the number of terms, `H + 1` here and called the horizon there. Arguments as in
    `value_expansion`, but for the last; without `terminal_q` the divisor stays. Stop-gradient: `alpha`.

    Args:
        termination_prob: `d_t` for `t <= H`; for `t < H` without `terminal_q`, which alone reads `d_H`.
    """
    horizon = reward.shape[1]
    alpha = alpha.detach() if isinstance(alpha, Tensor) else alpha
    discount = _discounts(gamma, reward)
    alive = survival(termination_prob)[:, 1:]
    value = (discount[:horizon] * (alive[:, :horizon] * reward - alpha * log_prob[:, :horizon])).sum(1)
    if terminal_q is not None:
        value = value + discount[horizon] * (alive[:, horizon] * terminal_q - alpha * log_prob[:, horizon])
    return value / (horizon + 1)


def td_k_targets(
    reward: Float[Tensor, "B H 1"],
    terminal_value: Float[Tensor, "B 1"],
    gamma: float,
    termination_prob: Float[Tensor, "B H 1"],
    next_entropy_bonus: Float[Tensor, "B H 1"] | None = None,
) -> Float[Tensor, "B H 1"]:
    """MVE's TD-k targets of `Q(x_t, u_t)`: `y_t = r_t + gamma (1 - d_t) (y_{t+1} + b_t)`, `y_H = terminal_value`.

    Every imagined step gets a target from the steps after it, so the critic is trained on the model's own states.
    `H >= 1`.

    Args:
        terminal_value: `V(x_H)`; of a soft value it contains its own entropy.
        next_entropy_bonus: `b_t = -alpha log pi(u_{t+1} | x_{t+1})`, which soft values add for `t + 1 < H`. The last
            entry is ignored, being part of `terminal_value`: `-alpha * imagined.log_prob[:, 1:]` is right as it stands.
    """
    stays = gamma * (1.0 - termination_prob)
    last = reward.shape[1] - 1
    target = terminal_value
    targets: list[Tensor] = []
    for t in range(last, -1, -1):
        following = target if next_entropy_bonus is None or t == last else target + next_entropy_bonus[:, t]
        target = reward[:, t] + stays[:, t] * following
        targets.append(target)
    return torch.stack(targets[::-1], dim=1)


def candidate_moments(
    reward: Float[Tensor, "B 1"],
    terminated: Bool[Tensor, "B 1"],
    imagined_reward: Float[Tensor, "M B H N"],
    value: Float[Tensor, "M B H+1 L"],
    termination_prob: Float[Tensor, "M B H 1"],
    gamma: float,
) -> tuple[Float[Tensor, "B H+1 1"], Float[Tensor, "B H+1 1"]]:
    """Mean and variance of STEVE's candidate targets over `L` values x `M` transitions x `N` rewards (section 3).

        T_i = r + sum_{k<i} gamma^{k+1} s_k r_n(x_k, u_k, x_{k+1}) + gamma^{i+1} s_i Q_l(x_i, u_i),      0 <= i <= H
        s_0 = 1 - d,  s_{k+1} = s_k (1 - d_m(x_k, u_k, x_{k+1}))

    on the rollout of each transition model m from the replayed `x_0`; `T_0` is the model-free target. The variance is
    the population's. Given m, rewards and values vary independently of each other, so it is `E_m[Var_n + Var_l] +
    Var_m[E_nl]`: exact, without forming all `L M N` candidates. Stop-gradient: both results. arXiv 1807.01675v2.

    Args:
        reward: `r` of the replayed transition.
        terminated: `d`: it has ended its episode; a truncation bootstraps.
        imagined_reward: of every reward model on every rollout; of a soft value with the step's entropy bonus.
        value: of every state-action value on every rollout; of a soft value with its entropy bonus.
        termination_prob: of each rollout's own termination model.
    """
    alive = survival(termination_prob.flatten(0, 1)).unflatten(0, termination_prob.shape[:2])
    discount = gamma * _discounts(gamma, termination_prob.flatten(0, 1))  # [H+1, 1]
    weight = discount * alive * (~terminated).unsqueeze(1)  # [M, B, H+1, 1]
    rewards = (weight[:, :, :-1] * imagined_reward).cumsum(2)
    rewards = torch.cat([torch.zeros_like(value[:, :, :1, :1]).expand(-1, -1, -1, rewards.shape[-1]), rewards], 2)
    values = weight * value
    of_member = reward.unsqueeze(1) + rewards.mean(-1, keepdim=True) + values.mean(-1, keepdim=True)  # [M, B, H+1, 1]
    within = rewards.var(-1, correction=0, keepdim=True) + values.var(-1, correction=0, keepdim=True)
    return of_member.mean(0).detach(), (within.mean(0) + of_member.var(0, correction=0)).detach()


def inverse_variance_weights(variance: Float[Tensor, "B C 1"], epsilon: float = 1e-8) -> Float[Tensor, "B C 1"]:
    """STEVE's weights of the `C` candidates: `w_i = (1 / (v_i + epsilon)) / sum_j (1 / (v_j + epsilon))` (section 3).

    The public code's `epsilon`, which the paper has not, makes candidates that nobody disagrees about equal. Stop-
    gradient: the result.
    """
    confidence = 1.0 / (variance + epsilon)
    return (confidence / confidence.sum(1, keepdim=True)).detach()


def generalized_advantages(
    reward: Float[Tensor, "N T 1"],
    value: Float[Tensor, "N T 1"],
    next_value: Float[Tensor, "N T 1"],
    terminated: Bool[Tensor, "N T 1"],
    done: Bool[Tensor, "N T 1"],
    gamma: float,
    lmbda: float,
) -> Float[Tensor, "N T 1"]:
    """`A_t = sum_{i>=t} (gamma lambda)^{i-t} delta_i` over the rest of the episode: GAE eq. 16 (arXiv 1506.02438v6).

    `delta_t = r_t + gamma V(x_{t+1}) - V(x_t)`, without `V(x_{t+1})` if the episode has terminated there. The sum stops
    with the episode, and with the rollout; where that is no termination, `next_value` stands for what would follow.

    Args:
        next_value: `V` of the true successor, which after the end of an episode is not the next row.
        terminated: ends after which there is no value.
        done: all ends, truncations included.
    """
    delta = reward + gamma * next_value * (~terminated) - value
    return discounted_sums(delta, done, gamma * lmbda)


def discounted_sums(x: Float[Tensor, "N T 1"], done: Bool[Tensor, "N T 1"], discount: float) -> Float[Tensor, "N T 1"]:
    """`S_t = x_t + discount S_{t+1}`, without the second term at the end of an episode and of the rollout.

    Differentiable in `x`.
    """
    sums: list[Tensor] = []
    following = torch.zeros_like(x[:, 0])
    for x_t, factor in zip(reversed(x.unbind(1)), reversed((discount * (~done).to(x)).unbind(1)), strict=True):
        following = torch.addcmul(x_t, factor, following)
        sums.append(following)
    return torch.stack(sums[::-1], dim=1)


def lambda_returns(
    reward: Float[Tensor, "B H 1"],
    next_value: Float[Tensor, "B H 1"],
    termination_prob: Float[Tensor, "B H 1"],
    gamma: float,
    lmbda: float,
) -> Float[Tensor, "B H 1"]:
    """`G_t = r_t + gamma (1 - d_t) ((1 - lambda) V_{t+1} + lambda G_{t+1})`, `G_H = V_H`: Dreamer eq. 6.

    With `d = 0` the first of them is MaxEnt Dreamer's eq. 5 (arXiv 2112.01195v1). Its form before eq. 5, `(1 - lambda)
    sum lambda^t G_t + lambda^T G_0`, has a misprint: the last term is `lambda^T G_T`, or eq. 5 would not follow. The
    terminations, which section 4.2 asks for without an equation, are eq. 1's: what comes after step t counts as far as
    the episode goes on.

    Args:
        reward: `r_t`.
        next_value: `V_{t+1}`, of the state that step t leads to.
        termination_prob: `d_t`, the probability that step t ends the episode.
        lmbda: 0: one step and a value; 1: all rewards and the last value.
    """
    stays = gamma * (1.0 - termination_prob)
    # What does not depend on the next return, for all steps at once: only the chain itself is a loop.
    fixed = (reward + stays * (1.0 - lmbda) * next_value).unbind(1)
    following = next_value[:, -1]
    returns: list[Tensor] = []
    for now, weight in zip(reversed(fixed), reversed((stays * lmbda).unbind(1)), strict=True):
        following = now + weight * following
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)


def _discounts(gamma: float, like: Float[Tensor, "B H 1"]) -> Float[Tensor, "H+1 1"]:
    """`gamma^t` for `t = 0 ... H`, at least in float32: half precision would round 0.99 to 0.988."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return gamma ** torch.arange(like.shape[1] + 1, dtype=dtype, device=like.device).unsqueeze(-1)


def n_step_return(
    reward: Float[Tensor, "B n 1"], mask: Bool[Tensor, "B n 1"], gamma: float
) -> tuple[Float[Tensor, "B 1"], Float[Tensor, "B 1"]]:
    """`sum_{i<k} gamma^i r_i` of the first `k` steps and the discount `gamma^k` of the value after them.

    Args:
        mask: True for the first `k` steps of each row, `1 <= k <= n`: fewer than `n` where the episode ends.
    """
    discount = _discounts(gamma, reward)  # [n + 1, 1]
    summed = (discount[:-1] * reward * mask).sum(1)
    return summed, discount.squeeze(-1)[mask.sum(1)]
