"""Sokoban as Weber et al. 2017 play it (arXiv 1707.06203, section 4.1 and appendix), `lit_mbrl/Sokoban-v0`.

A player pushes boxes onto targets, one at a time; a box cannot be pulled, so that a wrong push may leave a level that
nobody can solve. The actions are nothing, up, down, left and right. A step costs 0.1, a box on a target pays 1, a box
off one costs 1, and the last one pays 10 more and ends the episode; after 120 steps it is truncated.

| file | |
|---|---|
| `rules.py` | what a push does, many boards at a time |
| `levels.py` | levels by reverse play, and their division into those of training and of tests |
| `boxoban.py` | levels of Boxoban's text files |
| `images.py` | images of boards |
| `games.py` | episodes: boards, levels and random numbers together |
| `env.py`, `pool.py` | Gymnasium's environment and vector environment; what `VectorEnv` steps |

`gymnasium.make` and `make_vec` know the name once `lit_mbrl.envs` is imported.
"""

from __future__ import annotations

import gymnasium as gym

from lit_mbrl.envs.tasks.sokoban.env import MAX_STEPS, Sokoban, SokobanVector

NAME = "lit_mbrl/Sokoban-v0"

if NAME not in gym.registry:
    gym.register(NAME, Sokoban, max_episode_steps=MAX_STEPS, vector_entry_point=SokobanVector)
