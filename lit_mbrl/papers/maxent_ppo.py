"""PPO with an entropy bonus and with maximum entropy on FruitBot ("On-Policy Maximum Entropy Deep RL")."""

from __future__ import annotations

from lit_mbrl.papers.artefact import Artefact, Budget, Part

_SOURCE = "On-Policy Maximum Entropy Deep RL"
_NAMES = {
    "ppo": "PPO",
    "entropy_bonus": "PPO, entropy bonus",
    "max_entropy": "PPO, maximum entropy",
    "combined": "both",
}
_LEVELS = (50, 100, 250, 500)
_SMOKE = (
    "--data.env.num_envs=2",
    "--data.total_frames=256",
    "--data.epoch_frames=128",
    "--data.rollout_steps=32",
    "--data.num_epochs=1",
    "--data.batch_size=32",
    "--data.eval_episodes=1",
    "--data.env.max_episode_steps=20",
)


def _levels(*counts: int) -> dict[str, Part]:
    return {
        f"{count}_levels": Part(options=(f"--data.env.kwargs.num_levels={count}",), label=f"{count} levels")
        for count in counts
    }


def _variants(folder: str, *names: str) -> dict[str, Part]:
    return {name: Part(f"{folder}/{name}", label=_NAMES[name]) for name in names or _NAMES}


_LAPTOP_NOTE = "250 000 steps where the report has 2 000 000, 16 environments, minibatches of 512, three seeds"
_THREE = ("ppo", "entropy_bonus", "max_entropy")


def _budgets(levels: tuple[int, ...], names: tuple[str, ...]) -> dict[str, Budget]:
    return {
        "smoke": Budget(
            _levels(levels[-1]),
            _variants("fruitbot", names[0], names[-1]),
            (10,),
            _SMOKE,
            note="a few steps, which say nothing about the algorithms",
        ),
        "laptop": Budget(_levels(*levels), _variants("fruitbot", *names), (10, 11, 12), note=_LAPTOP_NOTE),
        "paper": Budget(
            _levels(*levels),
            _variants("paper/fruitbot", *names),
            (10, 11, 12, 13, 14),
            note="the report has one seed",
        ),
    }


_GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_TUNING = {
    f"{name}_{value:g}": Part(
        f"paper/fruitbot/{name}", (f"--model.entropy_coeff={value:g}",), f"{_NAMES[name]}, {value:g}"
    )
    for name in ("entropy_bonus", "max_entropy")
    for value in _GRID
}
FIGURE_2 = Artefact(
    "maxent_ppo/figure_2",
    "Training returns over the entropy coefficients of the bonus and of maximum entropy",
    f"{_SOURCE}, figure 2",
    {
        "paper": Budget(
            {
                "hard_100_levels": Part(
                    options=("--data.env.name=procgen/fruitbot-hard", "--data.env.kwargs.num_levels=100"),
                    label="hard, 100 levels",
                )
            },
            _TUNING,
            (10,),
            note="the report chooses among more coefficients, with annealing",
        )
    },
    metric="train/return",
)
FIGURE_3 = Artefact(
    "maxent_ppo/figure_3",
    "Training returns of three agents on 50, 100, 250 and 500 levels",
    f"{_SOURCE}, figure 3",
    _budgets(_LEVELS, _THREE),
    baseline="ppo",
    metric="train/return",
)
FIGURE_4 = Artefact(
    "maxent_ppo/figure_4",
    "Returns on unseen levels after 1 000 000 and 2 000 000 steps",
    f"{_SOURCE}, figure 4",
    {"paper": _budgets((500,), _THREE)["paper"]},
    baseline="ppo",
    at=(1_000_000, 2_000_000),
)
FIGURE_5 = Artefact(
    "maxent_ppo/figure_5",
    "Entropy of the policies of four agents on 250 levels",
    f"{_SOURCE}, figure 5",
    _budgets((250,), tuple(_NAMES)),
    metric="policy/entropy",
)

ARTEFACTS = (FIGURE_2, FIGURE_3, FIGURE_4, FIGURE_5)
