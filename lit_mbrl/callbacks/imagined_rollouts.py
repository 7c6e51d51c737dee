"""Draws what an agent imagines of each action, beside what happens if the same actions are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import lightning.pytorch.loggers
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.random_state import get_random_state, set_random_state
from lit_mbrl.utils.types import NonNegativeInt, PositiveInt

_OPTION = "trainer.callbacks"
# Of classes without colours of their own: those of Sokoban's cells, then others that differ from them.
_COLOURS = (
    "#000000",
    "#f3f8ee",
    "#fe7e7d",
    "#fe5f38",
    "#8e7938",
    "#a0d438",
    "#dbd438",
    "#0072b2",
    "#cc79a7",
    "#56b4e9",
)


class Outcome(NamedTuple):
    """Steps of `A` sequences of `T` actions from one state.

    | field | shape | |
    |---|---|---|
    | `frames` | `[A, T, h, w]` | classes |
    | `rewards` | `[A, T]` | |
    | `there` | `[A, T]` | whether the episode went on until this step |
    """

    frames: Tensor
    rewards: Tensor
    there: Tensor


@options
class ImaginedRollouts(Callback):
    """Draws the rollouts that an `I2A` imagines in a state of an episode, and the same actions in the environment.

    The image of an evaluation is `imagination/<environment steps>.png` in the run folder, and `eval/imagination` in
    W&B, once the agent imagines. Rewards stand above the frames; what is imagined wrongly has a red frame, a reward
    that is imagined wrongly is red.
    """

    section: ClassVar[str] = _OPTION

    every: PositiveInt = 1
    """Evaluations between images."""
    steps: NonNegativeInt = 6
    """Steps of an episode that the agent has taken before."""

    def __post_init__(self) -> None:
        self._evaluations = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises `OptionError` if the algorithm imagines no frames, or the environment cannot be put into a state."""
        name = type(pl_module).__name__
        right = f"an algorithm that imagines frames, as I2A; {name} does not"
        require(hasattr(pl_module, "imagine"), _OPTION, "ImaginedRollouts", right)
        if stage != "fit":
            return
        random_state = get_random_state()
        env = trainer.datamodule.make_env(1)
        env.reset()
        restorable = env.get_env_state() is not None
        env.close()
        set_random_state(random_state)
        right = f"an environment whose state can be restored; {trainer.datamodule.spec.name} cannot"
        require(restorable, _OPTION, "ImaginedRollouts", right)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws an image when it is time to."""
        module: Any = pl_module
        if trainer.state.fn != "fit" or trainer.fast_dev_run or not module.imagines or not trainer.is_global_zero:
            return
        self._evaluations += 1
        if self._evaluations % self.every:
            return
        random_state = get_random_state()
        try:
            start, imagined, happened = self.compare(trainer.datamodule, module)
        finally:
            set_random_state(random_state)
        path = Path(trainer.default_root_dir, "imagination", f"{module.env_steps}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_rollouts(start, imagined, happened, module.palette, path)
        for logger in trainer.loggers:
            if isinstance(logger, lightning.pytorch.loggers.WandbLogger):
                import wandb

                logger.experiment.log({"eval/imagination": wandb.Image(str(path)), "env_steps": module.env_steps})

    @torch.no_grad()
    def compare(self, data: Any, module: Any) -> tuple[Tensor, Outcome, Outcome]:
        """Returns a state's frame `[h, w]`, what is imagined from there, and what happens."""
        seed = data.evaluation_seed
        torch.manual_seed(seed)
        observation, state = self._state_of_an_episode(data, module, seed)
        rollouts = module.imagine(observation)
        frames, actions = rollouts.frames[0].cpu(), rollouts.actions[0].cpu()
        rewards = torch.tensor(module.rewards)[rollouts.rewards[0].long().cpu()]
        env = data.make_env(len(actions))  # a copy for each first action
        try:
            env.reset()
            env.set_env_state([state] * len(actions))
            steps, there = [], torch.ones(len(actions), dtype=torch.bool)
            for t in range(actions.shape[1]):
                following = _step(env, actions[:, t])
                cells = module.cells(following["observation"].to(module.device)).cpu()
                steps.append((cells, following["reward"][:, 0], there))
                if (over := following["done"][:, 0]).any():  # from where it takes steps that do not count
                    there = there & ~over
                    states = zip(env.get_env_state(), over.tolist(), strict=True)
                    env.set_env_state([state if done else each for each, done in states])
        finally:
            env.close()
        imagined = Outcome(frames, rewards, torch.ones_like(rewards, dtype=torch.bool))
        happened = Outcome(*(torch.stack(each, 1) for each in zip(*steps, strict=True)))
        return module.cells(observation)[0].cpu(), imagined, happened

    def _state_of_an_episode(self, data: Any, module: Any, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """The observation `[1, C, h, w]` after `steps` steps, or the last one before an end, and the exact state."""
        env = data.make_env(1)
        try:
            env.set_seed(seed)
            observation, state = env.reset()["observation"].to(module.device), env.get_env_state()[0]
            for _ in range(self.steps):
                following = _step(env, module.explore(observation, torch.zeros(1, 1, dtype=torch.bool)).cpu())
                if following["done"].any():
                    break
                observation, state = following["observation"].to(module.device), env.get_env_state()[0]
            return observation, state
        finally:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """The number of evaluations."""
        return {"evaluations": self._evaluations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._evaluations = state_dict["evaluations"]


def _step(env: Any, action: Tensor) -> TensorDict:
    return env.step(TensorDict({"action": action}, env.batch_size))["next"]


def save_rollouts(start: Tensor, imagined: Outcome, happened: Outcome, palette: Any, path: Path) -> None:
    """Draws two rows for each action, what is imagined and what happened; columns are steps.

    Args:
        start: `[h, w]`, classes of the frame that all begin at.
        imagined: of each action.
        happened: of the same.
        palette: colours of the classes; None: others.
        path: the PNG file.
    """
    import matplotlib
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    colours = _COLOURS if palette is None else [tuple(x / 255 for x in colour) for colour in palette]
    shown = {"cmap": ListedColormap(colours), "norm": BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours))}
    actions, steps = imagined.rewards.shape
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(1.1 * (steps + 1) + 0.8, 2.5 * actions), layout="constrained")
        panels = figure.subplots(2 * actions, steps + 1, squeeze=False)
        for panel in panels.flat:
            panel.set(xticks=[], yticks=[])
            for side in panel.spines.values():
                side.set_visible(False)
        for row in range(2 * actions):
            action, which = divmod(row, 2)
            name, outcome = (("imagined", imagined), ("happened", happened))[which]
            panels[row, 0].imshow(start.numpy(), **shown)
            panels[row, 0].set_ylabel(f"action {action}\n{name}", fontsize=7)
            for t in range(steps):
                if not outcome.there[action, t]:
                    continue
                panel, reward = panels[row, t + 1], float(outcome.rewards[action, t])
                panel.imshow(outcome.frames[action, t].numpy(), **shown)
                wrong = bool(which == 0 and happened.there[action, t])
                false_reward = wrong and abs(reward - float(happened.rewards[action, t])) > 1e-3
                panel.set_title(f"{reward:+.1f}", fontsize=7, pad=2, color="#d00000" if false_reward else "black")
                if wrong and not torch.equal(outcome.frames[action, t], happened.frames[action, t]):
                    for side in panel.spines.values():
                        side.set(visible=True, color="#d00000", linewidth=2.0)
        figure.savefig(path, dpi=110)
