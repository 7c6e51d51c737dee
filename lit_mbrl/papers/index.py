"""All artefacts by their names."""

from __future__ import annotations

from lit_mbrl.papers import lecture, maxent_dreamer, maxent_ppo, memr, sac_svg
from lit_mbrl.papers.artefact import Artefact

ARTEFACTS: dict[str, Artefact] = {
    artefact.name: artefact
    for paper in (sac_svg, memr, maxent_ppo, maxent_dreamer, lecture)
    for artefact in paper.ARTEFACTS
}
