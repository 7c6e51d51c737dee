"""Images and discrete actions from the environment to the replay: bytes stay bytes, each frame in its place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.envs.utils import check_env_specs

from lit_mbrl.algorithms import SAC
from lit_mbrl.data.collector import FrameCollector
from lit_mbrl.data.statistics import EpisodeStatistics
from lit_mbrl.envs import EnvConfig, Spec, VectorEnv, describe
from lit_mbrl.envs.wrappers.images import channel_first, is_channel_first
from lit_mbrl.utils.errors import OptionError
from tests.helpers.toys import PICTURE


def _frames(workers: bool, steps: int) -> TensorDictBase:
    env = VectorEnv(EnvConfig(PICTURE, num_envs=2, workers=workers), seed=3)
    torch.manual_seed(0)
    policy = TensorDictModule(
        lambda observation: torch.randint(3, observation.shape[:1]), in_keys=["observation"], out_keys=["action"]
    )
    collector = FrameCollector(env, policy, 2 * steps)
    frames = collector.rollout().clone()
    collector.shutdown()
    return frames


@pytest.mark.parametrize("workers", [False, True])
def test_a_collector_brings_every_image_with_its_action_and_its_end(workers):
    frames = _frames(workers, steps=12)
    seen, following = frames["observation"], frames["next", "observation"]
    assert seen.shape == (2, 12, 3, 4, 6) and seen.dtype == following.dtype == torch.uint8
    assert frames["action"].shape == (2, 12) and frames["action"].dtype == torch.int64
    step = torch.arange(12) % 5
    for copy in range(2):
        assert torch.equal(seen[copy, :, 0, 0, 0], step.byte())
        assert torch.equal(following[copy, :, 0, 3, 5], (step + 1).byte())  # the last picture of an episode, too
        assert torch.equal(following[copy, :, 1, 0, 0], (frames["action"][copy] + 1).byte())  # its actions start at 1
        assert torch.equal(frames["next", "terminated"][copy, :, 0], step == 4)
        tags = seen[copy, :, 2, 0, 0]
        assert torch.equal(tags, following[copy, :, 2, 0, 0])
        assert len(set(tags.tolist())) == 3
    meter = EpisodeStatistics(2)
    meter.add(frames)
    assert meter.pop() == {"train/return": 15.0, "train/episode_length": 5.0}


def test_workers_give_the_same_images():
    local, remote = (_frames(workers, steps=7) for workers in (False, True))
    assert bool((local == remote).all())


def test_the_environment_keeps_its_specs():
    env = VectorEnv(EnvConfig(PICTURE), seed=0, num_envs=2)
    check_env_specs(env)
    assert env.rollout(7, break_when_any_done=False)["observation"].dtype == torch.uint8
    env.close()


@pytest.mark.parametrize(
    ("shape", "first"), [((3, 64, 64), True), ((64, 64, 3), False), ((4, 84, 84), True), ((84, 84), False)]
)
def test_channels_are_found_at_either_end(shape, first):
    assert is_channel_first(shape) is first


def test_channels_come_first():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(channel_first(image)[1], image[:, :, 1])
    assert np.array_equal(channel_first(image[:, :, 0]), image[None, :, :, 0])
    assert channel_first(image).flags.c_contiguous


def test_wrong_combinations_are_told_in_one_line():
    images, vectors = describe(EnvConfig("CarRacing-v3")), describe(EnvConfig("Pendulum-v1"))

    class FromPixels(SAC):
        pixels = True

    class FromBoth(SAC):
        pixels = None

    with pytest.raises(OptionError, match=r"--data.env.name=CarRacing-v3: expected .* a vector as its observation, "):
        SAC().check(images)
    with pytest.raises(OptionError, match=r"--data.env.name=Pendulum-v1: expected .* images .* FromPixels needs"):
        FromPixels().check(vectors)
    FromBoth().check(vectors)
    FromBoth().check(images)
    with pytest.raises(OptionError, match=r"--model.normalize_observations=True: expected false"):
        FromBoth(normalize_observations=True).check(images)


def test_an_algorithm_knows_the_environment_before_it_builds():
    seen = []

    class Looks(SAC):
        def build(self, spec: Spec) -> None:
            seen.append(self.spec)
            super().build(spec)

    spec = describe(EnvConfig("Pendulum-v1"))
    algorithm = Looks(hidden_sizes=[4])
    algorithm._trainer = SimpleNamespace(datamodule=SimpleNamespace(spec=spec))
    algorithm.configure_model()
    assert seen == [spec]
