"""Dreamer with a revised model and with entropy ("Maximum Entropy Model-Based Reinforcement Learning")."""

from __future__ import annotations

from lit_mbrl.papers.artefact import Artefact, Budget, Part

_AGENTS = {
    "dreamer": "Dreamer",
    "dreamer_exploration": "Dreamer with exploration",
    "revised_dreamer": "Revised Dreamer",
    "maxent_dreamer": "MaxEnt Dreamer",
}
_SWING_UP = "--data.env.name=InvertedPendulumSwingupBulletEnv-v0"
_SAME = (_SWING_UP, "--data.env.action_repeat=4", "--data.total_frames=8000", "--data.epoch_frames=1000")

FIGURE_3 = Artefact(
    "maxent_dreamer/figure_3",
    "Dreamer, each of the two changes to it, and both",
    "Maximum Entropy Model-Based Reinforcement Learning, figure 3",
    {
        "laptop": Budget(
            {"swing_up": Part(label="InvertedPendulumSwingup")},
            {name: Part(name, _SAME, label) for name, label in _AGENTS.items()},
            (10, 11, 12),
            note="a swing-up, which the paper's figure does not have, with networks of 64 units and 32 000 simulator "
            "steps",
        ),
        "paper": Budget(
            {
                task: Part(f"paper/dreamer/{task}", label=task.capitalize())
                for task in ("ant", "halfcheetah", "hopper", "walker2d")
            },
            {name: Part(f"paper/dreamer/{name}", label=label) for name, label in _AGENTS.items()},
            (10, 11, 12, 13, 14),
            note="the paper's band is over the ten episodes of an evaluation",
        ),
    },
    baseline="dreamer",
)

ARTEFACTS = (FIGURE_3,)
