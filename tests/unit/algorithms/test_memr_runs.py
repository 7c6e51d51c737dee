"""Priorities, probabilities and weights on their way through MEMR's algorithm 1, against plain loops."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbrl.algorithms import MEMR
from lit_mbrl.data import OffPolicy
from lit_mbrl.data.buffers.priorities import Priorities
from tests.helpers.dyna import make
from tests.helpers.runs import SaveAndStop, Stop, fit


@pytest.mark.parametrize(("capacity", "later"), [(30, 30), (100, 200), (30, 20)])
def test_priorities_follow_their_frames_into_a_replay_of_another_size(
    capacity: int, later: int, tmp_path: Path
) -> None:
    path = tmp_path / "run.ckpt"
    algorithm, data = make("memr", capacity=capacity)
    with pytest.raises(Stop):
        fit(algorithm, data, SaveAndStop(path, 20))
    before = dict(zip(map(tuple, data.replay.frames()["observation"].tolist()), masses(data), strict=True))
    resumed, more = make("memr", capacity=later, total_frames=46, learning_starts=24)  # one more step
    fit(resumed, more, ckpt_path=path)
    after = dict(zip(map(tuple, more.replay.frames()["observation"].tolist()), masses(more), strict=True))
    assert len(after) == min(46, later)
    kept = [state for state in after if state in before and before[state] > 0]
    # A single rollout of 20 states has come since: whatever was not drawn has kept its priority.
    assert len(kept) >= len(after) - 4
    assert sum(after[state] == before[state] for state in kept) >= len(kept) - 20


def masses(data: OffPolicy) -> list[float]:
    return data.buffers["priorities"].of(torch.arange(len(data.replay))).tolist()


class Watched(MEMR):
    """Follows a rollout line by line."""

    def fill(self, data: OffPolicy, length: int) -> int:
        before = data.buffers["priorities"].known
        count = super().fill(data, length)
        rows = data.buffers["model"].rows()[-self.rollout_batch_size :].clone()
        self.checked.append((before, len(data.replay), rows))
        assert count == self.rollout_batch_size
        return count


@pytest.mark.parametrize("name", ["memr_known", "memr"])
def test_algorithm_1_line_by_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, data = make(name)
    algorithm.__class__ = Watched
    algorithm.checked = []
    drawn: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    original = Priorities.draw

    def draw(self: Priorities, count: int, size: int) -> Any:
        slots, probability = original(self, count, size)
        drawn.append((slots, probability, self._mass.clone()))
        return slots, probability

    monkeypatch.setattr(Priorities, "draw", draw)
    fit(algorithm, data)
    assert len(drawn) == len(algorithm.checked) == 18  # 36 steps after the warm-up, a rollout every second one
    known = 0
    for event, ((slots, probability, mass), (before, size, rows)) in enumerate(
        zip(drawn, algorithm.checked, strict=True)
    ):
        # Line 8: every state that is there has a priority before any is drawn; those of the last event had none yet.
        assert before == known and (mass[:size] > 0).all() and (mass[size:] == 0).all()
        known = size
        # Line 10, 11: the probability, the weight and its normalisation within the segment.
        total = sum(mass.tolist())
        steps = size
        beta = 0.4 + 0.6 * steps / 60
        weights = []
        for slot, p in zip(slots.tolist(), probability.tolist(), strict=True):
            assert p == pytest.approx(mass[slot].item() / total, rel=1e-5)
            weights.append((1 / (size * p)) ** beta)
        expected = torch.tensor(weights) / max(weights)
        torch.testing.assert_close(rows["weight"].squeeze(-1), expected, rtol=1e-4, atol=1e-6)
        assert rows["weight"].max() == 1.0
        # Line 12: the rollout starts where it was drawn.
        assert torch.equal(rows["observation"], data.replay.buffer[slots]["observation"])
        # Line 16: afterwards the drawn states have the priority of their new action, the others keep theirs.
        if event + 1 < len(drawn):
            after = drawn[event + 1][2][:size]
            others = torch.ones(size, dtype=torch.bool)
            others[slots] = False
            assert torch.equal(after[others], mass[:size][others])
            assert not torch.equal(after[~others], mass[:size][~others])
    # The last event's priorities are eq. 4 at its rows, of the policy as it was fitted to them (line 15).
    slots, _, _ = drawn[-1]
    rows = algorithm.checked[-1][2]
    mass = data.buffers["priorities"]._mass
    expected = algorithm.priority_mass(rows["observation"], rows["action"])
    for index, slot in enumerate(slots.tolist()):
        if slot not in slots[index + 1 :].tolist():
            assert mass[slot].item() == pytest.approx(expected[index].item(), rel=1e-4)


def test_the_first_events_are_those_written_out_from_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines 15 and 16 and eq. 4 by torch's distributions and Adam, over the events of a run, from its first on."""
    algorithm, data = make("memr")
    events: list[tuple[Any, ...]] = []
    fit_behaviour = algorithm.fit_behaviour

    def watched(observation: torch.Tensor, action: torch.Tensor) -> dict[str, float]:
        before, random = copy.deepcopy(algorithm.behaviour), torch.get_rng_state()
        metrics = fit_behaviour(observation, action)
        after = copy.deepcopy(algorithm.behaviour)
        events.append((before, random, after, observation, action, algorithm.priority_mass(observation, action)))
        return metrics

    monkeypatch.setattr(algorithm, "fit_behaviour", watched)
    fit(algorithm, data)
    psi = events[0][0]
    optimizer = torch.optim.Adam(psi.parameters(), lr=algorithm.behaviour_lr)
    for _, random, after, observation, action, mass in events:
        torch.set_rng_state(random)
        for rows in torch.randperm(len(action)).split(algorithm.behaviour_batch_size):
            mean, log_std = psi(observation[rows])
            density = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
            optimizer.zero_grad()
            (-density.log_prob(action[rows]).mean()).backward()
            optimizer.step()
        for ours, expected in zip(after.parameters(), psi.parameters(), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            mean, log_std = psi(observation)
        for i in range(len(action)):
            priority = 0.0
            for a, m, s in zip(action[i].tolist(), mean[i].tolist(), log_std[i].tolist(), strict=True):
                sigma = math.exp(s)
                likelihood = math.exp(-((a - m) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
                priority += -math.log(math.sqrt(2 * math.pi) * likelihood * sigma)
            assert mass[i].item() == pytest.approx(max(priority, 1e-6) ** 0.6, rel=1e-2, abs=1e-3)


def test_a_round_reads_one_segment_and_its_weights() -> None:
    algorithm, data = make("memr")
    fit(algorithm, data)
    m = algorithm.rollout_batch_size
    segments = data.buffers["model"]._rows.view(algorithm.segments, m)
    for _ in range(50):
        batch = algorithm.sample(data)["transitions"]
        hits = [
            s
            for s in range(algorithm.segments)
            if all((segments[s]["observation"] == row).all(-1).any() for row in batch["observation"])
        ]
        assert hits
        for row, weight in zip(batch["action"], batch["weight"], strict=True):
            assert any(weight in segments[s]["weight"][(segments[s]["action"] == row).all(-1)] for s in hits)


def test_real_rows_have_weight_one() -> None:
    algorithm, data = make("memr_known", real_ratio=0.5)
    fit(algorithm, data)
    batch = algorithm.sample(data)["transitions"]
    real = algorithm.real_rows(data.batch_size)
    assert (batch["weight"][:real] == 1.0).all() and real == 4
    assert (batch["weight"][real:] < 1.0).any()


def test_priorities_follow_the_ring_of_a_full_replay() -> None:
    algorithm, data = make("memr", capacity=30)
    fit(algorithm, data)
    assert data.replay.written == 60 and len(data.replay) == 30
    algorithm.rank_new_frames(data)
    assert (data.buffers["priorities"]._mass > 0).all()


def test_sizes_of_the_buffer() -> None:
    algorithm, data = make("memr", rollout_batch_size=400, segments=5)
    data.check_algorithm(algorithm)
    assert data.buffer_specs["model"].text == "2,000 transitions"
    assert data._buffer_bytes() == 2000 * (
        4 * (3 + 3 + 1 + 1 + 1) + 1
    )  # Pendulum: O = 3, A = 1; reward, weight; a flag
