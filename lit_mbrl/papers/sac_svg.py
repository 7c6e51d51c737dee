"""Amos et al. 2021, "On the model-based stochastic value gradient for continuous RL", arXiv 2008.12775v3."""

from __future__ import annotations

from lit_mbrl.papers.artefact import Artefact, Budget, Part, env, reported

_SOURCE = "arXiv 2008.12775v3"
_TASKS = ("ant", "hopper", "swimmer", "halfcheetah", "walker2d", "petscheetah")
_LABELS = ("Ant", "Hopper", "Swimmer", "Cheetah", "Walker2d", "PETS Cheetah")
_HORIZONS = (1, 2, 3, 4, 5, 10)


# Table 2: mean/standard deviation over ten trials; columns as `_TASKS`.
_TABLE_2 = reported(
    _TASKS,
    """
    svg_1         3691.00/1096.77  1594.43/1689.01  348.40/8.32      6890.20/1860.49  -291.54/659.52   5321.23/1507.00
    svg_2         4473.36/893.44   2851.90/361.07   350.22/3.63      8751.76/1785.66  447.68/1139.51   5799.59/1266.93
    svg_3         3833.12/1418.15  2024.43/1981.51  340.75/13.46     9220.39/1431.77  877.77/1533.08   5636.93/2117.52
    svg_4         2896.77/1444.40  2062.16/1245.33  348.03/6.35      8175.29/3226.04  1852.18/967.61   5807.69/1008.60
    svg_5         3221.66/1576.25  608.58/2105.60   340.99/4.58      6129.02/3519.98  1309.20/1281.76  4896.22/1033.33
    svg_10        1389.30/981.59   -2511.05/881.26  303.16/10.57     2477.25/2596.43  -2328.08/735.48  4248.25/802.54
    poplin_p      2330.1/320.9     2055.2/613.8     334.4/34.2       4235.0/1133.0    597.0/478.8      12227.9/5652.8
    sac_of_poplin 548.1/146.6      788.3/738.2      204.6/69.3       3459.8/1326.6    164.5/1318.6     1745.9/839.2
    sac           510.56/76.38     2180.33/977.30   351.24/5.27      6514.83/1100.61  1265.13/1317.00  3259.99/1219.94
    pets          1165.5/226.9     114.9/621.0      326.2/12.6       2288.4/1019.0    282.5/501.6      4204.5/789.0
    me_trpo       282.2/18.0       1272.5/500.9     225.5/104.6      2283.7/900.4     -1609.3/657.5    -744.8/707.1
    td3           870.1/283.8      1816.6/994.8     72.1/130.9       3015.7/969.8     -516.4/812.2     218.9/593.3
    """,
)
_SVG = {f"svg_{h}": Part("paper/sac_svg/poplin_{task}", (f"--model.horizon={h}",), f"SAC-SVG({h})") for h in _HORIZONS}
_SAC = Part("paper/sac_svg/poplin_{task}", ("--model.horizon=0",), "SAC (H = 0)")
_LAPTOP_SVG = {f"svg_{h}": Part("sac_svg_poplin", (f"--model.horizon={h}",), f"SAC-SVG({h})") for h in (2,)}
_LAPTOP_SAC = Part("sac_svg_poplin", ("--model.horizon=0",), "SAC (H = 0)")
_SMALL = {
    "swimmer": Part(options=env("poplin/Swimmer"), label="Swimmer"),
    "petscheetah": Part(options=env("poplin/PETSCheetah"), label="PETS Cheetah"),
}
# So few steps that the whole path from run to report takes a minute.
_SMOKE = (
    "--data.total_frames=120",
    "--data.epoch_frames=60",
    "--data.learning_starts=60",
    "--data.batch_size=16",
    "--data.eval_episodes=1",
    "--data.env.max_episode_steps=20",
)

_BUDGETS = {
    "smoke": Budget(
        {"swimmer": _SMALL["swimmer"]},
        {"sac": _LAPTOP_SAC, **_LAPTOP_SVG},
        (10, 11),
        (*_SMOKE, "--data.sequence_batch_size=16"),
        note="a few steps, which say nothing about the algorithms",
    ),
    "laptop": Budget(
        _SMALL,
        {"sac": _LAPTOP_SAC, **_LAPTOP_SVG},
        (10, 11, 12, 13, 14),
        ("--data.total_frames=50000", "--data.epoch_frames=5000"),
        note="networks of 128 units and a model of 64 where the paper has 512, batches of 256 and 128 where it has 512 "
        "and 1024, a constant target entropy of -2",
        reported=True,
    ),
    "paper": Budget(
        {task: Part(label=label) for task, label in zip(_TASKS, _LABELS, strict=True)},
        {
            **_SVG,
            "sac": _SAC,
            "me_trpo": Part("paper/me_trpo/{task}", label="ME-TRPO"),
        },
        tuple(range(10, 20)),
        note="POPLIN-P's, PETS' and TD3's rows have no run of their own yet: their configs are of one task each",
        reported=True,
    ),
}

TABLE_2 = Artefact(
    "sac_svg/table_2",
    "Returns of SAC-SVG(H) over horizons, and of baselines, on POPLIN's tasks",
    f"{_SOURCE}, table 2",
    _BUDGETS,
    baseline="sac",
    reported=_TABLE_2,
)
FIGURE_5 = Artefact(
    "sac_svg/figure_5",
    "Learning curves of SAC-SVG(H) on POPLIN's tasks",
    f"{_SOURCE}, figure 5",
    {
        **_BUDGETS,
        "paper": Budget(_BUDGETS["paper"].tasks, {**_SVG, "sac": _SAC}, tuple(range(10, 20)), reported=True),
    },
    baseline="sac",
    reported=_TABLE_2,
)

_MBPO_TASKS = {
    "ant": "Ant",
    "hopper": "Hopper",
    "halfcheetah": "Cheetah",
    "humanoid": "Humanoid",
    "walker2d": "Walker2d",
}
FIGURE_2 = Artefact(
    "sac_svg/figure_2",
    "Learning curves of SAC-SVG(2) and MBPO on MBPO's tasks",
    f"{_SOURCE}, figure 2",
    {
        "laptop": Budget(
            {"inverted_pendulum": Part(options=env("InvertedPendulum-v5"), label="InvertedPendulum-v5")},
            {
                "mbpo": Part("mbpo", label="MBPO"),
                "sac": Part("sac_svg", ("--model.horizon=0", "--data.total_frames=5000"), "SAC (H = 0)"),
                "svg_2": Part("sac_svg", ("--model.horizon=2", "--data.total_frames=5000"), "SAC-SVG(2)"),
            },
            (10, 11, 12, 13, 14),
            note="the pendulum, which the paper's figure does not have, with networks of 64 units",
        ),
        "paper": Budget(
            {task: Part(label=task.capitalize()) for task in _MBPO_TASKS},
            {
                "svg_2": Part("paper/sac_svg/mbpo_{task}", label="SAC-SVG(2)"),
                "mbpo": Part("paper/mbpo/{task}", label="MBPO"),
            },
            tuple(range(10, 20)),
            note="the paper's other curve is STEVE's, of its authors' runs",
        ),
    },
)

FIGURE_3 = Artefact(
    "sac_svg/figure_3",
    "Multi-step error of an ensemble and of a recurrent model on the replay of SAC",
    f"{_SOURCE}, figure 3",
    missing="model_error measures it on the replay of one run; over seeds it has to be put together",
)

_EXPANSIONS = {
    "sac": ("--model.critic_horizon=0", "--model.horizon=0", "SAC"),
    "mve": ("--model.critic_horizon=2", "--model.horizon=0", "MVE(2), model-free actor"),
    "svg": ("--model.critic_horizon=0", "--model.horizon=2", "SVG(2)"),
    "mve_svg": ("--model.critic_horizon=2", "--model.horizon=2", "MVE(2) and SVG(2)"),
}
_LAPTOP_EXPANSIONS = {
    name: Part("mve_svg", (critic, actor), label) for name, (critic, actor, label) in _EXPANSIONS.items()
}
FIGURE_4 = Artefact(
    "sac_svg/figure_4",
    "Value expansion in the actor, the critic, both and neither",
    f"{_SOURCE}, figure 4",
    {
        "smoke": Budget(
            {"pendulum": Part(options=env("Pendulum-v1"), label="Pendulum")},
            {name: _LAPTOP_EXPANSIONS[name] for name in ("sac", "mve")},
            (10,),
            _SMOKE,
            note="a few steps, which say nothing about the algorithms",
        ),
        "laptop": Budget(
            {"pendulum": Part(options=env("Pendulum-v1"), label="Pendulum")},
            _LAPTOP_EXPANSIONS,
            (10, 11, 12, 13, 14),
            note="the pendulum, which the paper's figure does not have, with networks of 64 units",
        ),
    },
    baseline="sac",
)
FIGURE_7 = Artefact(
    "sac_svg/figure_7",
    "The critic's value expansion with either actor, with the error of the model",
    f"{_SOURCE}, figure 7",
    {
        "laptop": Budget(
            FIGURE_4.budgets["laptop"].tasks,
            {name: _LAPTOP_EXPANSIONS[name] for name in ("mve", "mve_svg")},
            (10, 11, 12, 13, 14),
            note=FIGURE_4.budgets["laptop"].note,
        )
    },
    metric="model/mse_1",
    lower_is_better=True,
)

ARTEFACTS = (TABLE_2, FIGURE_2, FIGURE_3, FIGURE_4, FIGURE_5, FIGURE_7)
