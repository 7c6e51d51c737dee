"""What the algorithms say of themselves, against what they do with real environments."""

from __future__ import annotations

import pytest

import lit_mbrl
from lit_mbrl import algorithms, data
from lit_mbrl.utils.errors import OptionError


def test_every_algorithm_is_asked() -> None:
    found = lit_mbrl.capabilities()
    assert set(found) == set(lit_mbrl.list_algorithms())
    assert all(each.continuous or each.discrete for each in found.values())
    assert all(each.vectors or each.images or each.states or each.goals for each in found.values())


@pytest.mark.parametrize(
    ("environment", "kind", "actions"),
    [
        ("Pendulum-v1", "vectors", "continuous"),
        ("CartPole-v1", "vectors", "discrete"),
        ("maze/Dyna", "states", "discrete"),
    ],
)
def test_an_environment_is_taken_by_those_who_say_so(environment: str, kind: str, actions: str) -> None:
    spec = data.OnPolicy(environment).spec
    for name, each in lit_mbrl.capabilities().items():
        try:
            getattr(algorithms, name)().check(spec)
            taken = True
        except OptionError as error:  # of its own options some have to be given for such a task
            taken = str(error).startswith("--model.")
        # One of n states is a vector, too, for those who take vectors.
        observed = each.states or each.vectors if kind == "states" else getattr(each, kind)
        assert taken == (observed and getattr(each, actions)), name


def test_known_limits() -> None:
    found = lit_mbrl.capabilities()
    assert {name for name, each in found.items() if each.states} == {"DynaQ", "DynaQPlus"}
    assert {name for name, each in found.items() if each.goals} == {"TDM", "TDMTD3"}
    assert {"SAC", "TD3", "DDPG", "DQN"} <= {name for name, each in found.items() if each.hindsight}
    assert not found["MBPO"].hindsight and not found["PPO"].hindsight  # they learn from more than the replay, from none
    assert not found["PETS"].devices and found["SAC"].devices
    assert found["WorldModels"].images and not found["WorldModels"].vectors
