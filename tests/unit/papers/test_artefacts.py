"""The declared artefacts: all that the source documents have, configs that exist, the papers' own numbers."""

from __future__ import annotations

import pytest

from lit_mbrl.app import CONF
from lit_mbrl.app.defaults import read_config
from lit_mbrl.papers.artefact import Budget, Part, env, reported
from lit_mbrl.papers.index import ARTEFACTS


def test_the_tables_and_figures_of_the_documents_are_there() -> None:
    names = {
        "sac_svg": ("table_2", "figure_2", "figure_3", "figure_4", "figure_5", "figure_7"),
        "memr": ("figure_2",),
        "maxent_ppo": ("figure_2", "figure_3", "figure_4", "figure_5"),
        "maxent_dreamer": ("figure_3",),
        "lecture": ("dyna_q", "car_racing", "i2a_depth", "sokoban", "tdm", "planet"),
    }
    assert list(ARTEFACTS) == [f"{paper}/{name}" for paper, found in names.items() for name in found]


@pytest.mark.parametrize("name", [name for name, artefact in ARTEFACTS.items() if artefact.budgets])
def test_configs_exist_and_seeds_are_not_those_of_choices(name: str) -> None:
    chosen_on = {
        config: set(entry["seeds_used_for_options"])
        for config, entry in read_config(CONF / "qualification.yaml").items()
    }
    for budget in ARTEFACTS[name].budgets.values():
        cells = list(budget.cells())
        assert len({(cell.task, cell.variant) for cell in cells}) == len(cells) > 0
        for cell in cells:
            assert cell.configs, cell
            for config in cell.configs:
                assert (CONF / f"{config}.yaml").is_file(), cell
                assert not chosen_on.get(config, set()) & set(budget.seeds), cell
            assert all(option.startswith("--") and "=" in option for option in cell.options)


def test_a_cell_has_the_configs_and_options_of_its_task_and_variant() -> None:
    budget = Budget(
        {"a": Part("tasks/a", ("--data.x=1",)), "b": Part(options=env("B", action_repeat=2))},
        {"v": Part("v_{task}", ("--model.y=2",))},
        (1,),
        ("--z=0",),
    )
    first, second = budget.cells()
    assert first.configs == ("tasks/a", "v_a") and second.configs == ("v_b",)
    assert first.options == ("--z=0", "--model.y=2", "--data.x=1")
    assert second.options[2:] == ("--data.env.name=B", "--data.env.action_repeat=2")


def test_a_printed_table_is_read_by_rows() -> None:
    found = reported(("a", "b"), "\n  x 1.5/0.5 -2/3\n  y 4/5 6/7\n")
    assert found == {"x": {"a": (1.5, 0.5), "b": (-2.0, 3.0)}, "y": {"a": (4.0, 5.0), "b": (6.0, 7.0)}}
    with pytest.raises(ValueError):
        reported(("a", "b"), "x 1/2")


def test_table_2_of_the_svg_paper() -> None:
    table = ARTEFACTS["sac_svg/table_2"].reported
    assert len(table) == 12 and all(len(row) == 6 for row in table.values())
    assert table["svg_2"]["petscheetah"] == (5799.59, 1266.93)
    assert table["svg_10"]["hopper"] == (-2511.05, 881.26)
    assert table["poplin_p"]["petscheetah"] == (12227.9, 5652.8)
    assert table["td3"]["swimmer"] == (72.1, 130.9)
    assert max(table, key=lambda variant: table[variant]["ant"][0]) == "svg_2"
