"""Pictures as observations: what they show, how often they are drawn, and that they continue exactly."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from lit_mbrl.envs import EnvConfig, PixelConfig, VectorEnv, describe
from lit_mbrl.envs.make import make_configured, make_gym
from lit_mbrl.envs.state import get_state, set_state
from lit_mbrl.envs.wrappers.images import resize
from lit_mbrl.envs.wrappers.pixels import PixelObservation
from lit_mbrl.envs.wrappers.rendering import gl_backend
from lit_mbrl.envs.wrappers.repeat import ActionRepeat
from lit_mbrl.utils.errors import OptionError
from tests.helpers.toys import PICTURE, TOY

ROOT = Path(__file__).parents[4]
LIGHT = "InvertedPendulumSwingupBulletEnv-v0"


def _actions(env: gym.Env, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("size", [(500, 500), (96, 96), (100, 64), (64, 130), (64, 64), (40, 50)])
def test_resizing_is_torch_s_area_interpolation(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image).movedim(-1, 0)[None].float(), size=(64, 64), mode="area"
    )
    resized = torch.from_numpy(resize(image, 64)).movedim(-1, 0).float()
    assert (resized - expected[0]).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", ["Pendulum-v1", LIGHT, "HopperBulletEnv-v0"])
def test_a_picture_per_step_of_the_agent(name):
    """Rewards and ends are those of the environment stepped twice; pictures are of where it then is."""
    single = make_gym(name, max_episode_steps=9)
    env = make_configured(EnvConfig(name, max_episode_steps=9, action_repeat=2, pixels=PixelConfig(size=32)))
    spec = describe(EnvConfig(name, max_episode_steps=9, action_repeat=2, pixels=PixelConfig(size=32)))
    assert spec.pixels and spec.observation_shape == (3, 32, 32) and spec.max_episode_steps == 5
    assert spec.action_dim == single.action_space.shape[0] and spec.terminated is None
    single.reset(seed=5)
    first, _ = env.reset(seed=5)
    assert first.shape == (3, 32, 32) and first.dtype == np.uint8 and first.std() > 3
    for action in _actions(env, 5):
        image, reward, terminated, truncated, _ = env.step(action)
        expected, over = 0.0, False
        for _ in range(2):
            if not over:
                _, r, *ends, _ = single.step(action)
                expected, over = expected + float(r), any(ends)
        assert reward == pytest.approx(expected)
        assert (terminated or truncated) == over
        if over:
            break
    assert over and (image != first).any()
    env.close()
    single.close()


def test_each_step_draws_once(monkeypatch):
    env = make_configured(EnvConfig("Pendulum-v1", action_repeat=4, pixels=PixelConfig(size=16)))
    count = 0
    draw = env._draw

    def counted() -> np.ndarray:
        nonlocal count
        count += 1
        return draw()

    monkeypatch.setattr(env, "_draw", counted)
    env.reset(seed=0)
    for action in _actions(env, 3):
        env.step(action)
    assert count == 4
    image = env.step(np.zeros(1, np.float32))[0]
    assert np.array_equal(np.moveaxis(env.render(), -1, 0), image) and count == 5  # what is shown is drawn already
    env.close()


def test_an_action_is_repeated_until_the_episode_ends():
    env = ActionRepeat(make_gym(TOY, longest=3), 5)
    env.reset(seed=0)
    length = env.unwrapped._state[2]
    _, reward, terminated, _, _ = env.step(np.ones(1, np.float32))
    assert terminated and reward == 4.0 * length  # the toy's action range is [0, 4]


def test_an_image_of_its_own_is_resized():
    env = make_configured(EnvConfig(PICTURE, pixels=PixelConfig(size=8)))
    image, _ = env.reset(seed=0)
    assert image.shape == (3, 8, 8)
    assert (env.step(1)[0][:2, 0, 0] == (1, 1)).all()


@pytest.mark.parametrize("name", ["Pendulum-v1", LIGHT, "AntBulletEnv-v0"])
def test_a_second_environment_continues_bit_for_bit_with_its_pictures(name):
    config = EnvConfig(name, max_episode_steps=30, action_repeat=2, pixels=PixelConfig(size=24))
    env = make_configured(config)
    env.reset(seed=1)
    actions = _actions(env, 30)
    for action in actions[:7]:
        env.step(action)
    state = pickle.loads(pickle.dumps(get_state(env)))

    def roll(env: gym.Env) -> list[np.ndarray]:
        said = []
        for action in actions[7:]:
            image, reward, terminated, truncated, _ = env.step(action)
            said += [image, np.float64(reward)]
            if terminated or truncated:
                said.append(env.reset()[0])
        return said

    expected = roll(env)
    other = make_configured(config)
    set_state(other, state)
    assert all(np.array_equal(a, b) for a, b in zip(roll(other), expected, strict=True))
    env.close()
    other.close()


def test_workers_draw_the_same_pictures():
    frames = []
    for workers in (False, True):
        torch.manual_seed(0)
        config = EnvConfig(LIGHT, num_envs=2, workers=workers, pixels=PixelConfig(size=16), action_repeat=2)
        env = VectorEnv(config, seed=0)
        frames.append(env.rollout(5)["observation"])
        env.close()
    assert frames[0].shape == (2, 5, 3, 16, 16) and torch.equal(*frames)


MUJOCO = """
import numpy as np
from lit_mbrl.envs import EnvConfig, PixelConfig, describe
from lit_mbrl.envs.make import make_configured
from lit_mbrl.envs.state import get_state, set_state
from lit_mbrl.utils.errors import OptionError
config = EnvConfig({name!r}, max_episode_steps=40, action_repeat=2, pixels=PixelConfig())
assert describe(config).observation_shape == (3, 64, 64)
assert "torch" not in __import__("sys").modules
env, other = make_configured(config), make_configured(config)
actions = np.random.default_rng(0).uniform(-1, 1, (8, *env.action_space.shape)).astype(np.float32)
first = env.reset(seed=0)[0]
other.reset(seed=1)
for action in actions:
    env.step(action), other.step(action)
state = get_state(env)
expected = [env.step(action)[0] for action in actions]
set_state(other, state)
assert all(np.array_equal(other.step(action)[0], image) for action, image in zip(actions, expected, strict=True))
env.close()  # whose context must not be the other's
image = other.step(actions[0])[0]
assert first.std() > 10 and image.std() > 10 and (image != first).any()
other.close()
try:
    make_configured(EnvConfig({foreign!r}, pixels=PixelConfig()))
except OptionError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "foreign"), [("poplin/HalfCheetah", "dmc/cheetah-run"), ("dmc/cheetah-run", "HalfCheetah-v5")]
)
def test_mujoco_in_a_process_of_its_own(name, foreign):
    if gl_backend(("egl", "osmesa")) is None:
        pytest.skip("no graphics library")
    pytest.importorskip("dm_control")
    code = MUJOCO.format(name=name, foreign=foreign)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"--data.env.name={foreign}: expected environments of")


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (lambda: PixelConfig(size=4), "--data.env.pixels.size=4: expected an integer from 8 to 2048"),
        (lambda: PixelConfig(camera=-1), "--data.env.pixels.camera=-1: expected a camera's name or number, or null"),
        (lambda: EnvConfig("a", action_repeat=0), "--data.env.action_repeat=0: expected an integer > 0"),
        (
            lambda: make_configured(EnvConfig("Pendulum-v1", pixels=PixelConfig(camera="track"))),
            "--data.env.pixels.camera=track: expected null for Pendulum-v1, which has one view",
        ),
        (
            lambda: make_configured(EnvConfig(TOY, pixels=PixelConfig())),
            f"--data.env.name={TOY}: expected an environment that renders images (rgb_array)",
        ),
    ],
)
def test_mistakes_are_one_line(config, line):
    with pytest.raises(OptionError) as error:
        config()
    assert str(error.value) == line


def test_no_graphics_library_is_one_line_and_no_harm_to_state_only_use(monkeypatch):
    from lit_mbrl.envs.wrappers import rendering

    monkeypatch.setattr(rendering, "gl_backend", lambda candidates: None)
    monkeypatch.delenv("LIT_MBRL_GL", raising=False)
    config = EnvConfig("HalfCheetah-v5", pixels=PixelConfig())
    with pytest.raises(OptionError, match="apt install libegl1 libgl1-mesa-dri, or libosmesa6"):
        describe(config)
    assert describe(EnvConfig("HalfCheetah-v5")).observation_dim == 17


def test_the_film_of_pictures_is_what_the_agent_sees():
    from lit_mbrl.envs.wrappers.recording import RecordedEnv

    pictures: list[np.ndarray] = []
    config = EnvConfig(LIGHT, max_episode_steps=6, action_repeat=2, pixels=PixelConfig(size=16))
    env = RecordedEnv(config, 0, pictures.append)
    frames = env.rollout(3)
    assert len(pictures) == 4
    assert np.array_equal(pictures[-1], frames["next", "observation"][0, -1].movedim(0, -1).numpy())
    env.close()


def test_the_wrapper_refuses_what_has_no_picture():
    env = make_gym("Pendulum-v1")  # without render_mode
    with pytest.warns(UserWarning, match="without specifying any render mode"), pytest.raises(OptionError):
        PixelObservation(env, EnvConfig("Pendulum-v1", pixels=PixelConfig()))
