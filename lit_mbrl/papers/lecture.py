"""The systems of the lecture on world models and imagination, and of the papers behind it."""

from __future__ import annotations

from lit_mbrl.papers.artefact import Artefact, Budget, Part, env

_PLANNING = {f"n_{n}": Part("dyna_q", (f"--model.planning_steps={n}",), f"n = {n}") for n in (0, 5, 50)}
_LONG = ("--data.total_frames=20000", "--data.epoch_frames=5000")  # some fifty episodes without planning
_MAZE = {"maze": Part(label="maze of example 8.1")}
DYNA_Q = Artefact(
    "lecture/dyna_q",
    "Steps per episode of Dyna-Q with 0, 5 and 50 planning steps",
    "Sutton and Barto 2018, figure 8.2",
    {
        "smoke": Budget(_MAZE, _PLANNING, (10, 11), ("--data.total_frames=3000", "--data.epoch_frames=1500")),
        "laptop": Budget(
            _MAZE, _PLANNING, tuple(range(10, 20)), _LONG, note="against steps, where the book has episodes"
        ),
        "paper": Budget(
            _MAZE, _PLANNING, tuple(range(10, 40)), _LONG, note="against steps, where the book has episodes"
        ),
    },
    baseline="n_0",
    metric="train/episode_length",
    lower_is_better=True,
)
_POINT = {"point_mass": Part(options=env("goals/PointMass"), label="point mass")}
TDM = Artefact(
    "lecture/tdm",
    "Temporal difference models on DDPG and on TD3",
    "Pong et al. 2018, arXiv 1802.09081, figure 2",
    {
        "laptop": Budget(
            _POINT,
            {"tdm": Part("tdm", label="TDM"), "tdm_td3": Part("tdm_td3", label="TDM on TD3")},
            tuple(range(10, 20)),
            note="a point mass, which the paper's figure does not have",
        ),
        "paper": Budget(
            {name: Part("paper/tdm/{task}") for name in ("halfcheetah", "ant", "reacher", "pusher")},
            {"tdm": Part(label="TDM")},
            (10, 11, 12, 13, 14),
        ),
    },
)
CAR_RACING = Artefact(
    "lecture/car_racing",
    "World Models' controller on the code alone, and on code and hidden state",
    "Ha and Schmidhuber 2018, arXiv 1803.10122, table 1",
    missing="the two controllers share their first stages, which one run does not yet give to another",
)
_PLANET = {
    "cartpole_swingup": "Cartpole Swing Up",
    "reacher_easy": "Reacher Easy",
    "cheetah_run": "Cheetah Run",
    "finger_spin": "Finger Spin",
    "cup_catch": "Cup Catch",
    "walker_walk": "Walker Walk",
}
PLANET = Artefact(
    "lecture/planet",
    "PlaNet on six tasks from pixels, an agent for each",
    "Hafner et al. 2019, arXiv 1811.04551, figure 4",
    {
        "laptop": Budget(
            {"pendulum": Part(options=(*env("Pendulum-v1"),), label="Pendulum")},
            {"planet": Part("planet", label="PlaNet")},
            (10, 11, 12),
            note="Pendulum, which the paper's figure does not have, with networks of 64 units",
        ),
        "paper": Budget(
            {name: Part("paper/planet/{task}", label=label) for name, label in _PLANET.items()},
            {"planet": Part(label="PlaNet")},
            (10, 11, 12, 13, 14),
        ),
    },
)
_SMALL_SOKOBAN = {"sokoban": Part(label="Sokoban, 7 x 7, one box")}
_SOKOBAN_NOTE = (
    "levels of 7 x 7 cells with one box and a million steps, where the paper has 10 x 10, four boxes and a billion"
)
I2A_DEPTH = Artefact(
    "lecture/i2a_depth",
    "Imagination-augmented agents over the depth of their rollouts",
    "Weber et al. 2017, arXiv 1707.06203, figure 4",
    {
        "laptop": Budget(
            _SMALL_SOKOBAN,
            {f"depth_{depth}": Part("i2a", (f"--model.depth={depth}",), f"depth {depth}") for depth in (1, 3, 5)},
            (10, 11, 12),
            note=_SOKOBAN_NOTE,
        )
    },
    baseline="depth_1",
)
SOKOBAN = Artefact(
    "lecture/sokoban",
    "Imagination-augmented agents and their copy model on Sokoban",
    "Weber et al. 2017, arXiv 1707.06203, figure 3",
    {
        "laptop": Budget(
            _SMALL_SOKOBAN,
            {
                "copy": Part("i2a", ("--model.environment_model=copy",), "copy model"),
                "i2a": Part("i2a", label="I2A"),
            },
            (10, 11, 12),
            note=f"{_SOKOBAN_NOTE}; I2A's steps include its model-free agent's and the model's",
        )
    },
    baseline="copy",
)

ARTEFACTS = (DYNA_Q, CAR_RACING, I2A_DEPTH, SOKOBAN, TDM, PLANET)
