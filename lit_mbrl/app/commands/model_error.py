"""`python -m lit_mbrl model_error`: figure 3 of the SVG paper (Amos et al. 2021, arXiv 2008.12775v3) from a replay.

An ensemble of one-step networks against a single recurrent network on the same data, which neither has collected.
Split into episodes, in the order in which they were played:

    replay of a run --> test: episodes drawn from the whole run, fixed
                    --> the others, one after the other --> hold-out: some of those so far
                                                        --> training: the rest of those so far

After every few episodes both models are trained on what is there, and the error of their predictions several steps
ahead is measured on all three. Hold-out against test is the shift of the data, training against hold-out overfitting.

Readings: "retraining" starts from the weights before unless `--fresh` is given, and ends by the hold-out error, as
MBPO's does. Errors are mean squares over steps and features, of observations normalised by the whole replay's
statistics; the ensemble predicts the mean of its members at each step.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.app.application import run_command
from lit_mbrl.app.checkpoints import CheckpointInfo, read_checkpoint, require_replay
from lit_mbrl.app.commands.options import OptionParser, positive_integer, positive_number
from lit_mbrl.app.output import print_rank_zero
from lit_mbrl.data.buffers.files import ReplayFiles
from lit_mbrl.data.buffers.transitions import Replay
from lit_mbrl.models import EnsembleConfig, RecurrentConfig, WorldModelFactory
from lit_mbrl.reports.model_error import SPLITS, draw_errors
from lit_mbrl.reports.table import table
from lit_mbrl.training.model_fit import ModelFitter
from lit_mbrl.utils.errors import OptionError, UsageError, require

_DESCRIPTION = """Draws figure 3 of the SVG paper: how far an ensemble of one-step networks and a single recurrent
network are from the truth several steps ahead, on training, hold-out and test episodes of the replay of a finished run
(an independent one, such as SAC's), as episodes are added in the order in which they were played. Writes a PNG, an SVG,
and the numbers as CSV and JSON."""
_WINDOWS = 2000
_TEST, _HOLDOUT = 5, 5  # every fifth episode


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code; a user's mistake is printed as one line and gives 2."""
    return run_command(_model_error, argv)


def _model_error(argv: Sequence[str]) -> None:
    options = _parser().parse_args(argv)
    number = {name: positive_integer(name, getattr(options, name)) for name in _INTEGERS}
    lr = positive_number("lr", options.lr)
    require(options.seed.isdigit(), "seed", options.seed, "an integer >= 0")
    out = _output(options.out)
    saved = read_checkpoint(Path(options.ckpt_path))
    require_replay(saved)
    torch.manual_seed(int(options.seed))
    data = Episodes.of(saved, number["horizon"])
    sizes, members = [number["hidden_size"]] * number["layers"], number["members"]
    models = {
        f"ensemble of {members}": EnsembleConfig(
            num_members=members, num_elites=members, hidden_sizes=sizes, lr=lr, termination="learned"
        ),
        "recurrent": RecurrentConfig(hidden_size=number["recurrent_size"], lr=lr),
    }
    learners = {name: Learner(factory, data, options.fresh) for name, factory in models.items()}
    print_rank_zero(
        f"{saved.algorithm} on {saved.environment}: {len(data.others)} episodes to add, {len(data.test)} to test on; "
        + ", ".join(f"{name} {learner.parameters:,} parameters" for name, learner in learners.items())
    )
    rows = []
    for count in data.counts(number["points"]):
        training, holdout = data.first(count)
        for name, learner in learners.items():
            epochs = learner.train(training, holdout, number["batch_size"], number["max_epochs"])
            for split, episodes in zip(SPLITS, (training, holdout, data.test), strict=True):
                errors = learner.errors(episodes)
                rows.append(
                    Row(count, data.length(training), name, split, epochs, errors.mean().item(), errors.tolist())
                )
        print_rank_zero(
            f"{count} episodes: " + ", ".join(f"{r.model} {r.split} {r.mse:.3g}" for r in rows[-2 * len(SPLITS) :])
        )
    written = _write(rows, out, saved, vars(options)) + draw_errors(
        rows, f"{saved.environment}, {saved.algorithm}", out
    )
    last = [row for row in rows if row.episodes == rows[-1].episodes]
    print_rank_zero(table([("model", "split", "mse"), *((r.model, r.split, f"{r.mse:.4g}") for r in last)], right=(2,)))
    print_rank_zero(f"written: {', '.join(map(str, written))}")


_INTEGERS = {
    "horizon": ("3", "steps predicted from each start"),
    "points": ("8", "how often the models are retrained, at evenly spaced numbers of episodes"),
    "members": ("5", "networks of the ensemble"),
    "layers": ("2", "hidden layers of each"),
    "hidden_size": ("64", "width of each"),
    "recurrent_size": ("64", "width of the recurrent model's encoder, GRU and decoder"),
    "batch_size": ("256", "transitions or sequences per step"),
    "max_epochs": ("100", "passes over the data per retraining, at most"),
}


def _parser() -> OptionParser:
    parser = OptionParser("model_error", _DESCRIPTION)
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint, with its replay")
    parser.add_argument("--out", default="model_error", help="name of the files, without ending (default: %(default)s)")
    for name, (default, text) in _INTEGERS.items():
        parser.add_argument(f"--{name}", default=default, help=f"{text} (default: %(default)s)")
    parser.add_argument("--lr", default="1e-3", help="Adam's learning rate (default: %(default)s)")
    parser.add_argument("--seed", default="0", help="of splits, weights and batches (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="retrain from new weights each time")
    return parser


@dataclass(frozen=True)
class Row:
    """One point of the figure: `mse` is the mean of `mse_per_step`, whose first entry is one step ahead."""

    episodes: int
    transitions: int
    model: str
    split: str
    epochs: int
    mse: float
    mse_per_step: list[float]


class Episodes:
    """The episodes of a replay, normalised: `test` from all over the run, the `others` in their order.

    Attributes:
        test: the episodes to test on, each `[T]`.
        others: the episodes to be added.
        horizon: steps of a window.
    """

    def __init__(self, episodes: list[TensorDictBase], horizon: int) -> None:
        self.horizon = horizon
        whole = [episode for episode in episodes if len(episode) >= horizon]
        # One of every five in a row, drawn: the test covers the run as evenly as the others do.
        fold = torch.randint(_TEST, (-(-len(whole) // _TEST),))
        tests = {_TEST * k + int(place) for k, place in enumerate(fold)}
        self.test = [episode for k, episode in enumerate(whole) if k in tests]
        self.others = [episode for k, episode in enumerate(whole) if k not in tests]

    @classmethod
    def of(cls, saved: CheckpointInfo, horizon: int) -> Episodes:
        """The episodes of a checkpoint's replay.

        Raises:
            OptionError: if it has no replay, or one of several devices.
            UsageError: if there are too few episodes.
        """
        found = cls(list(episodes_of(saved)), horizon)
        if len(found.others) < 3 or not found.test:
            raise UsageError(
                f"--ckpt_path={saved.path}: expected a replay with at least 5 episodes of --horizon={horizon} steps or "
                f"more, this one has {len(found.others) + len(found.test)}"
            )
        return found

    def counts(self, points: int) -> list[int]:
        """Numbers of episodes at which to retrain, the last one being all."""
        total = len(self.others)
        return sorted({max(2, round(total * k / points)) for k in range(1, points + 1)})

    def first(self, count: int) -> tuple[list[TensorDictBase], list[TensorDictBase]]:
        """Training and hold-out episodes among the first `count`: every fifth is held out, the second one first."""
        chosen = self.others[:count]
        holdout = [episode for k, episode in enumerate(chosen) if k % _HOLDOUT == 1]
        return [episode for k, episode in enumerate(chosen) if k % _HOLDOUT != 1], holdout

    def length(self, episodes: list[TensorDictBase]) -> int:
        """Transitions in them."""
        return sum(map(len, episodes))

    def windows(self, episodes: list[TensorDictBase], length: int) -> TensorDictBase:
        """Every window of `length` consecutive transitions, `[N, length]`."""
        cut = []
        for episode in episodes:
            starts = torch.arange(len(episode) - length + 1).unsqueeze(-1)
            cut.append(episode[starts + torch.arange(length)])
        return torch.cat(cut)


def episodes_of(saved: CheckpointInfo) -> Iterator[TensorDictBase]:
    """The episodes `[T]` of a checkpoint's replay by their starts, observations normalised by the whole of it."""
    content = torch.load(saved.path, map_location="cpu", weights_only=True, mmap=True)
    require(saved.devices == 1, "ckpt_path", saved.path, "a checkpoint of a run on one device")
    states = [part["replay"] for part in content.values() if isinstance(part, dict) and "replay" in part]
    if not states or saved.config is None:
        raise OptionError(
            "ckpt_path", saved.path, "the checkpoint of an off-policy run, with its replay and its config"
        )
    (state,) = states
    num_envs = saved.config["data"]["init_args"]["env"].get("num_envs", 1)
    replay = Replay(state["size"], num_envs)
    if "files" in state:
        ReplayFiles(saved.path.parent / "replay").load(replay, state)
    else:
        replay.load_state_dict(state)
    names = replay.numbered(replay.written - len(replay), replay.written)
    flat = {tuple(name.split(".")): value for name, value in names.items()}
    frames = TensorDict({key if len(key) > 1 else key[0]: value for key, value in flat.items()}, [state["size"]])
    std, mean = torch.std_mean(frames["observation"], 0, correction=0)
    std = torch.where(std < 1e-6, torch.ones_like(std), std)
    frames["observation"] = (frames["observation"] - mean) / std
    frames["next", "observation"] = (frames["next", "observation"] - mean) / std
    found: list[tuple[int, TensorDictBase]] = []
    for copy in range(num_envs):
        own = frames[copy::num_envs]
        over = (own["next", "terminated"] | own["next", "truncated"]).flatten()
        ends = [*(over.nonzero().flatten() + 1).tolist(), len(own)]
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            if end > start:
                found.append((start, own[start:end]))
    yield from (episode for _, episode in sorted(found, key=lambda pair: pair[0]))


class Learner:
    """One of the two models, with its optimisers.

    Args:
        factory: builds it.
        fresh: start from new weights at every training.
    """

    def __init__(self, factory: WorldModelFactory, data: Episodes, fresh: bool) -> None:
        self.factory, self.data, self.fresh = factory, data, fresh
        self._build()

    @property
    def parameters(self) -> int:
        """Numbers that predict the observation."""
        return sum(parameter.numel() for parameter in self.objective.parameters())

    def train(
        self, training: list[TensorDictBase], holdout: list[TensorDictBase], batch_size: int, max_epochs: int
    ) -> int:
        """Trains the dynamics until the hold-out error no longer falls; returns the number of epochs."""
        if self.fresh:
            self._build()
        length = self.objective.length or self.data.horizon
        windows = self.data.windows(training, length), self.data.windows(holdout, length)
        result = self.fitter.fit(
            self.objective,
            self.model,
            windows[0].squeeze(1) if length == 1 else windows[0],
            windows[1].squeeze(1) if length == 1 else windows[1],
            batch_size=batch_size,
            max_epochs=max_epochs,
        )
        return result.epochs

    @torch.no_grad()
    def errors(self, episodes: list[TensorDictBase]) -> Tensor:
        """Mean squared error of each step ahead, `[horizon]`, over the same windows for every model."""
        windows = self.data.windows(episodes, self.data.horizon)
        windows = windows[:: -(-len(windows) // _WINDOWS)]
        predicted = self.model.unroll(windows["observation"][:, 0], windows["action"])
        return (predicted - windows["next", "observation"]).square().mean((0, 2))

    def _build(self) -> None:
        example = self.data.others[0]
        self.model = self.factory.build(example["observation"].shape[-1], example["action"].shape[-1])
        (self.objective,) = [each for each in self.factory.objectives(self.model) if each.name == "dynamics"]
        self.fitter = ModelFitter()


def _output(name: str) -> Path:
    out = Path(name)
    out = out.with_suffix("") if out.suffix in (".png", ".svg", ".csv", ".json") else out
    require(out.name != "" and not out.is_dir(), "out", name, "the name of a file, without its ending")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError("out", name, f"a name in a folder that can be written to ({error.strerror})") from error
    return out


def _write(rows: list[Row], out: Path, saved: CheckpointInfo, options: dict[str, Any]) -> list[Path]:
    as_csv, as_json = (out.with_name(f"{out.name}.{ending}") for ending in ("csv", "json"))
    with as_csv.open("w", newline="") as file:
        writer = csv.writer(file)
        steps = [f"mse_{h + 1}" for h in range(len(rows[0].mse_per_step))]
        writer.writerow(["episodes", "transitions", "model", "split", "epochs", "mse", *steps])
        for row in rows:
            writer.writerow(
                [row.episodes, row.transitions, row.model, row.split, row.epochs, row.mse, *row.mse_per_step]
            )
    run = {"algorithm": saved.algorithm, "environment": saved.environment, "env_steps": saved.env_steps}
    as_json.write_text(json.dumps({"run": run, "options": options, "rows": [vars(row) for row in rows]}, indent=1))
    return [as_csv, as_json]
