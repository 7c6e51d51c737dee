"""Policy distillation: divergences and their direction, all kinds of teachers, what is refused, and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from lit_mbrl.algorithms import DDPG, DQN, PPO, SAC, Algorithm, PolicyDistillation
from lit_mbrl.envs import Spec
from lit_mbrl.losses import categorical_kl, diagonal_normal_kl
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data, make_rollouts

DISCRETE = Spec("made up", observation_dim=3, action_dim=4, discrete=True)
CONTINUOUS = Spec("made up", observation_dim=3, action_dim=2)
# Teachers by their environment and, of continuous ones, the kind of policy.
TEACHERS: dict[str, tuple[type[Algorithm], str, str]] = {
    "PPO": (PPO, "CartPole-v1", "tanh_gaussian"),
    "DQN": (DQN, "CartPole-v1", "tanh_gaussian"),
    "SAC": (SAC, "Pendulum-v1", "tanh_gaussian"),
    "PPO, continuous": (PPO, "Pendulum-v1", "gaussian"),
}


def teacher(folder: Path, kind: type[Algorithm], env: str, **options: Any) -> Path:
    """The checkpoint of an agent that was trained for a moment."""
    path = folder / f"{kind.__name__}-{env}.ckpt"
    data = make_rollouts(env) if kind is PPO else make_data(env)
    fit(kind(hidden_sizes=[8, 8], **options), data).save_checkpoint(path)
    return path


def normals(numbers: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = numbers.chunk(2, -1)
    return mean, log_std.exp()


def test_divergences_are_those_of_torch() -> None:
    first, second = torch.randn(2, 6, 4, dtype=torch.float64).log_softmax(-1)
    expected = kl_divergence(Categorical(logits=first), Categorical(logits=second))
    torch.testing.assert_close(categorical_kl(first, second)[:, 0], expected)
    numbers = torch.randn(2, 6, 4, dtype=torch.float64)
    gaussians = [Independent(Normal(*normals(each)), 1) for each in numbers]
    torch.testing.assert_close(diagonal_normal_kl(*numbers)[:, 0], kl_divergence(*gaussians))
    # After a tanh, of one number, whose divergence torch knows as well.
    squashed = [TransformedDistribution(Normal(*normals(each[:, ::2])), [TanhTransform()]) for each in numbers]
    torch.testing.assert_close(diagonal_normal_kl(*numbers[..., ::2]), kl_divergence(*squashed))


def batch_of(algorithm: PolicyDistillation, spec: Spec) -> TensorDict:
    observation = torch.randn(5, 3)
    numbers = torch.randn(5, spec.action_dim * (1 if spec.discrete else 2))
    return TensorDict(
        {"observation": observation, "teacher": numbers.log_softmax(-1) if spec.discrete else numbers}, [5]
    )


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_the_direction_is_that_of_the_lecture_unless_the_other_is_asked_for(spec: Spec) -> None:
    """The lecture: E[D_KL(student || teacher)]."""
    losses = {}
    for direction in (None, "student_teacher", "teacher_student"):
        torch.manual_seed(0)
        algorithm = PolicyDistillation(**({} if direction is None else {"divergence": direction}))
        algorithm.configure(spec)
        batch = batch_of(algorithm, spec)
        losses[direction] = algorithm.student_loss(batch).item()
        student, known = algorithm.distribution(batch["observation"]), batch["teacher"]
    student = student.detach()
    total = {"student_teacher": 0.0, "teacher_student": 0.0}
    for s, t in zip(student, known, strict=True):
        if spec.discrete:
            p, q = s.exp().tolist(), t.exp().tolist()
            total["student_teacher"] += sum(a * (torch.tensor(a) / b).log().item() for a, b in zip(p, q, strict=True))
            total["teacher_student"] += sum(b * (torch.tensor(b) / a).log().item() for a, b in zip(p, q, strict=True))
        else:
            pair = [Independent(Normal(*normals(each)), 1) for each in (s, t)]
            total["student_teacher"] += kl_divergence(*pair).item()
            total["teacher_student"] += kl_divergence(*pair[::-1]).item()
    for direction, value in total.items():
        assert losses[direction] == pytest.approx(value / 5, rel=1e-4)
    assert losses[None] == losses["student_teacher"] != losses["teacher_student"]


def test_a_student_too_small_for_two_modes_shows_the_direction() -> None:
    """A normal fitted to one far from it in width: D_KL(student || teacher) is finite where the student is certain."""
    wide, narrow = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -3.0]])
    # log 20 - 1/2 of a narrow student in a wide teacher; the other way the teacher's width counts, 200.
    assert diagonal_normal_kl(narrow, wide).item() == pytest.approx(3.0 - 0.5, abs=2e-3)
    assert diagonal_normal_kl(wide, narrow).item() > 100.0


@pytest.mark.parametrize("name", sorted(TEACHERS))
@pytest.mark.parametrize("acting", ["teacher", "student"])
def test_a_student_comes_close_to_its_teacher_and_stands_alone(name: str, acting: str, tmp_path: Path) -> None:
    kind, env, policy = TEACHERS[name]
    path = teacher(tmp_path, kind, env)
    student = PolicyDistillation(teacher=str(path), hidden_sizes=[16], policy=policy, acting=acting, lr=1e-2)
    data = make_rollouts(env, total_frames=400, num_epochs=10, max_episode_steps=20)
    losses: list[float] = []
    student.on_train_metrics = lambda recorded: losses.append(float(recorded["loss/student"]))
    student.needs_metrics = True
    trainer = fit(student, data)
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    trainer.save_checkpoint(tmp_path / "student.ckpt")
    path.unlink()
    alone = PolicyDistillation.load_from_checkpoint(tmp_path / "student.ckpt")
    observation = torch.randn(6, data.spec.observation_dim)
    assert torch.equal(alone.act(observation), student.act(observation))
    assert alone.also_evaluated == () and student.also_evaluated == ("teacher",)
    assert not any("teacher" in key for key in alone.state_dict())


@pytest.mark.parametrize("name", sorted(TEACHERS))
def test_the_teacher_s_policy_is_read_as_it_acts(name: str, tmp_path: Path) -> None:
    kind, env, policy = TEACHERS[name]
    student = PolicyDistillation(teacher=str(teacher(tmp_path, kind, env)), policy=policy)
    data = make_rollouts(env)
    student.configure(data.spec)
    student.check_start(data.spec)
    (agent,) = student._teacher
    observation = torch.randn(400, data.spec.observation_dim)
    numbers = student.teacher_distribution(observation)
    assert not numbers.requires_grad
    best = numbers.argmax(-1) if data.spec.discrete else numbers.chunk(2, -1)[0]
    mode = torch.tanh(best) if policy == "tanh_gaussian" and not data.spec.discrete else best
    torch.testing.assert_close(mode if data.spec.discrete else mode.clamp(-1, 1), agent.act(observation))
    one = observation[:1].expand(20_000, -1)
    drawn, taken = (each.explore(one, torch.zeros(20_000, 1, dtype=torch.bool)).float() for each in (student, agent))
    if kind is not DQN:  # which explores otherwise
        torch.testing.assert_close(drawn.mean(0), taken.mean(0), atol=0.05, rtol=0.0)
        torch.testing.assert_close(drawn.std(0), taken.std(0), atol=0.05, rtol=0.0)
    else:
        assert torch.equal(numbers, (agent.critic(observation) / 0.01).log_softmax(-1))


def test_a_teacher_s_statistics_are_taken_over(tmp_path: Path) -> None:
    path = teacher(tmp_path, PPO, "CartPole-v1", normalize_observations=True)
    student = PolicyDistillation(teacher=str(path), normalize_observations=True)
    fit(student, make_rollouts())
    (agent,) = student._teacher
    assert torch.equal(student.normalizer.mean, agent.normalizer.mean) and student.normalizer.count == 60
    with pytest.raises(OptionError, match=r"model\.normalize_observations=False: expected True"):
        fit(PolicyDistillation(teacher=str(path)), make_rollouts())


@pytest.mark.parametrize("acting", ["teacher", "student"])
def test_a_resumed_run_is_bit_equal(acting: str, tmp_path: Path) -> None:
    options = {"teacher": str(teacher(tmp_path, PPO, "CartPole-v1")), "acting": acting}
    whole, data = PolicyDistillation(**options), make_rollouts()
    fit(whole, data)
    with pytest.raises(Stop):
        fit(PolicyDistillation(**options), make_rollouts(), SaveAndStop(tmp_path / "half.ckpt", 13))
    again, more = PolicyDistillation(**options), make_rollouts()
    fit(again, more, seed=9, ckpt_path=tmp_path / "half.ckpt")
    first, second = everything(whole, data), everything(again, more)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    ppo, sac, ddpg = (
        str(teacher(tmp_path, kind, env))
        for kind, env in ((PPO, "CartPole-v1"), (SAC, "Pendulum-v1"), (DDPG, "Pendulum-v1"))
    )
    cart, pendulum = make_rollouts, lambda **options: make_rollouts("Pendulum-v1", **options)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    for options, data, told in (
        ({}, cart(), "model.teacher=null: expected the checkpoint of a trained agent"),
        ({"teacher": "nowhere.ckpt"}, cart(), "model.teacher=nowhere.ckpt: expected a checkpoint, but there is no"),
        ({"teacher": str(tmp_path / "text.ckpt")}, cart(), "expected a checkpoint that can be read"),
        ({"teacher": sac}, cart(), "the observations and actions of CartPole-v1, not SAC's"),
        ({"teacher": ppo}, pendulum(), "the observations and actions of Pendulum-v1, not PPO's"),
        ({"teacher": ddpg}, pendulum(), "whose policy is a distribution (SAC's, PPO's, DQN's), not DDPG's"),
        ({"teacher": sac, "policy": "gaussian"}, pendulum(), "model.policy=gaussian: expected tanh_gaussian, as SAC's"),
        ({"teacher": sac, "temperature": 0.5}, pendulum(), "model.temperature=0.5: expected null for SAC"),
        ({"teacher": ppo, "policy": "gaussian"}, cart(), "model.policy=gaussian: expected left out"),
        ({"teacher": ppo}, cart(eval_actions="sample"), "data.eval_actions=sample: expected mode"),
    ):
        with pytest.raises(OptionError) as error:
            fit(PolicyDistillation(**options), data)
        assert told in str(error.value) and "\n" not in str(error.value)
