"""Zhang et al. 2020, "Maximum Entropy Model Rollouts", arXiv 2006.04802."""

from __future__ import annotations

from lit_mbrl.papers.artefact import Artefact, Budget, Part, env

_AXES = ("step", "time/policy_updates", "time/model_rollouts")
_VARIANTS = {
    "sac": Part("sac", ("--data.total_frames=5000", "--data.epoch_frames=250"), "SAC"),
    "mbpo": Part("mbpo", label="MBPO"),
    "memr": Part("memr", label="MEMR"),
}
_FEW = ("--data.total_frames=120", "--data.epoch_frames=60", "--data.learning_starts=60", "--data.eval_episodes=1")
_TASKS = {"inverted_pendulum": Part(options=env("InvertedPendulum-v5"), label="InvertedPendulum-v5")}

FIGURE_2 = Artefact(
    "memr/figure_2",
    "Returns of MEMR, MBPO and SAC against environment steps, policy updates and model rollouts",
    "arXiv 2006.04802, figure 2",
    {
        "smoke": Budget(
            _TASKS,
            {
                "sac": Part("sac", (*_FEW, "--data.batch_size=16"), "SAC"),
                "memr": Part("memr", (*_FEW, "--data.batch_size=64", "--model.rollout_batch_size=200"), "MEMR"),
            },
            (10,),
            note="a few steps, which say nothing about the algorithms",
        ),
        "laptop": Budget(
            _TASKS,
            _VARIANTS,
            (10, 11, 12, 13, 14),
            note="the pendulum, which the paper's figure does not have, with networks of 64 units",
        ),
        "paper": Budget(
            {name: Part(label=name.capitalize()) for name in ("ant", "hopper", "halfcheetah", "walker2d")},
            {"mbpo": Part("paper/mbpo/{task}", label="MBPO"), "memr": Part("paper/memr/{task}", label="MEMR")},
            (10, 11, 12, 13, 14),
            note="the paper's other curve is SAC's; its configuration is not printed",
        ),
    },
    axes=_AXES,
)

ARTEFACTS = (FIGURE_2,)
