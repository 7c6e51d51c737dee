"""What the algorithms can be used for, found by asking each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lit_mbrl.utils.errors import OptionError


@dataclass(frozen=True)
class Capabilities:
    """Environments and devices that an algorithm takes.

    Attributes:
        continuous: actions that are vectors in bounds.
        discrete: actions that are one of n.
        vectors: observations that are vectors, or dictionaries and tuples of them.
        images: observations that are images.
        states: observations that are one of n, and nothing else.
        goals: a task with goals, and nothing else.
        hindsight: relabelling of goals (`data.hindsight`).
        devices: training on several.
        data: its data module.
    """

    continuous: bool
    discrete: bool
    vectors: bool
    images: bool
    states: bool
    goals: bool
    hindsight: bool
    devices: bool
    data: str


_DATA = {"transitions": "OffPolicy", "sequences": "Sequences", "rollouts": "OnPolicy"}


def capabilities() -> dict[str, Capabilities]:
    """Returns the capabilities of every algorithm, with its default options, by its name."""
    from lit_mbrl import algorithms
    from lit_mbrl.api.algorithms import list_algorithms

    return {name: _ask(getattr(algorithms, name)()) for name in list_algorithms() if hasattr(algorithms, name)}


def _ask(algorithm: Any) -> Capabilities:
    from lit_mbrl.envs import Spec

    goal = {"observation": slice(0, 2), "achieved_goal": slice(2, 3), "desired_goal": slice(3, 4)}
    kinds: dict[str, dict[str, Any]] = {
        "vectors": {"observation_dim": 4},
        "images": {"observation_dim": 3 * 64 * 64, "observation_shape": (3, 64, 64)},
        "states": {"observation_dim": 4, "states": 4},
        "goals": {"observation_dim": 4, "parts": goal, "goal_reward": lambda achieved, desired: achieved - desired},
    }
    taken = {
        (kind, discrete)
        for kind, options in kinds.items()
        for discrete in (False, True)
        if _acts_in(
            algorithm,
            Spec("an environment", action_dim=2, discrete=discrete, max_episode_steps=100, **options),
        )
    }
    observed = {kind for kind, _ in taken}
    return Capabilities(
        continuous=any(not discrete for _, discrete in taken),
        discrete=any(discrete for _, discrete in taken),
        vectors="vectors" in observed,
        images="images" in observed,
        states=observed == {"states"},
        goals=observed == {"goals"},
        hindsight=_takes_hindsight(algorithm),
        devices=_takes(algorithm.check_devices, 2),
        data=_DATA[algorithm.learns_from],
    )


class _Asked:
    """In the place of a data module: the buffers that an algorithm asks for besides the replay."""

    def __init__(self) -> None:
        self.buffers: list[str] = []

    def add_buffer(self, name: str, *sizes: Any, **options: Any) -> None:
        self.buffers.append(name)

    add_priorities = add_buffer


def _takes_hindsight(algorithm: Any) -> bool:
    if not algorithm.takes_relabelled:
        return False
    asked = _Asked()
    algorithm.add_buffers(asked)
    return not asked.buffers


def _acts_in(algorithm: Any, spec: Any) -> bool:
    """Returns whether nothing is wrong with the environment; options of the algorithm's own may have to be given."""
    try:
        algorithm.check(spec)
    except OptionError as error:
        return not str(error).startswith("--data.env")
    return True


def _takes(check: Any, value: Any) -> bool:
    try:
        check(value)
    except OptionError:
        return False
    return True


def capability_table() -> str:
    """Returns the capabilities as a Markdown table, a row per algorithm."""
    lines = ["| algorithm | actions | observations | hindsight | several devices | data |", "|---" * 6 + "|"]
    for name, found in capabilities().items():
        actions = ", ".join(kind for kind in ("continuous", "discrete") if getattr(found, kind))
        special = ["one of n states"] * found.states + ["with goals"] * found.goals
        observations = ", ".join([kind for kind in ("vectors", "images") if getattr(found, kind)] + special)
        marks = ("yes" if has else "" for has in (found.hindsight, found.devices))
        lines.append(f"| {' | '.join([f'`{name}`', actions, observations, *marks, f'`{found.data}`'])} |")
    return "\n".join(lines)
