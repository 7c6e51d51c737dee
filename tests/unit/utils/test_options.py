"""Options are declared: constructor, checks and help of a class follow from its annotations."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, field, replace
from pathlib import Path
from typing import Any, ClassVar

import jsonargparse
import pytest
from torch import nn

from lit_mbrl.algorithms import SAC
from lit_mbrl.app.cli import main
from lit_mbrl.utils.errors import OptionError, UsageError
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import ClosedUnitInterval, PositiveInt, Sizes


@options
class Base(nn.Module):
    """A module with options."""

    section: ClassVar[str] = "model"
    num: PositiveInt = 2
    share: ClosedUnitInterval = 0.5
    sizes: Sizes = (8,)
    compile: bool = False  # a method of modules has this name
    notes: ClassVar[str] = "no option"

    def __post_init__(self) -> None:
        self.layer = nn.Linear(self.num, 1)  # a module has to be initialised for that


@options
class Left(Base):
    extra: int = 1


@options
class Right(Base):
    num: PositiveInt = 7


@options
class Both(Left, Right):
    pass


class Old(Base):
    """Has a constructor of its own."""

    def __init__(self, more: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.more = more


@options(frozen=True, eq=True)
class Config:
    section: ClassVar[str] = "data.env"
    name: str = field(kw_only=False)
    repeat: PositiveInt = 1
    kwargs: dict[str, Any] = field(default_factory=dict)


def test_defaults_values_and_lists_as_tuples() -> None:
    assert (Base().num, Base().share, Base().sizes) == (2, 0.5, (8,))
    assert (Base(num=3).layer.in_features, Base(sizes=[4, 4]).sizes) == (3, (4, 4))
    with pytest.raises(TypeError, match="nums"):
        Base(nums=3)
    with pytest.raises(TypeError, match="notes"):
        Base(notes="x")
    with pytest.raises(TypeError):
        Base(3)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"num": 0}, "--model.num=0: expected an integer > 0"),
        ({"num": "a"}, "--model.num=a: expected an integer > 0"),
        ({"num": None}, "--model.num=null: expected an integer > 0"),
        ({"share": 2}, "--model.share=2: expected a number between 0 and 1"),
        ({"share": float("nan")}, "--model.share=nan: expected a finite number"),
        ({"sizes": (8, 0)}, "--model.sizes=[8, 0]: expected positive layer sizes, as [256,256]"),
        ({"compile": 1}, "--model.compile=1: expected true or false"),
    ],
)
@pytest.mark.parametrize("cls", [Base, Both, Old])
def test_a_wrong_value_is_refused(cls: type, given: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError) as error:
        cls(**given)
    assert str(error.value) == line


def test_algorithms_have_them() -> None:
    with pytest.raises(OptionError) as error:
        SAC(gamma=2)
    assert (error.value.option, error.value.value) == ("model.gamma", 2)
    assert error.value.expected == "a number between 0 and 1"


def test_types_are_resolved_for_jsonargparse() -> None:
    # The annotations of this file are texts: unresolved, jsonargparse would let any value pass.
    assert inspect.signature(Both).parameters["sizes"].annotation == tuple[int, ...]
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "module")
    configs = jsonargparse.ArgumentParser(exit_on_error=False)
    configs.add_argument("--config", type=Config)
    name = f"--module={__name__}"
    assert parser.parse_args([f"{name}.Both", "--module.num=3"]).module.init_args.num == 3
    assert parser.parse_args([f"{name}.Old", "--module.share=1"]).module.init_args.share == 1.0
    for wrong in ("num=a", "num=1.5", "share=a", "sizes=[a]", "sizes=3", "compile=2", "nums=3"):
        for cls in ("Both", "Old"):
            with pytest.raises(jsonargparse.ArgumentError):
                parser.parse_args([f"{name}.{cls}", f"--module.{wrong}"])
    with pytest.raises(jsonargparse.ArgumentError):
        parser.parse_args([f"{name}.Old", "--module.more=a"])
    with pytest.raises(jsonargparse.ArgumentError):
        configs.parse_args(["--config.name=a", "--config.repeat=a"])
    module = parser.instantiate(parser.parse_args([f"{name}.Both", "--module.num=3"])).module
    assert (type(module), module.num, module.extra) == (Both, 3, 1)
    config = configs.instantiate(configs.parse_args(["--config.name=a", "--config.repeat=2"])).config
    assert (config.name, config.repeat) == ("a", 2)


def test_of_several_bases_the_first_one_s_declaration_holds() -> None:
    # `Left` declares no `num`, so that of `Right` comes before the one of `Base`, as for any attribute.
    assert (Both().num, Both(num=1).num, Both().extra) == (7, 1, 1)


def test_an_option_hides_no_method() -> None:
    assert Base().compile is False and "compile" not in vars(Base)
    module = Base()
    assert take(module, "compile") is False
    assert inspect.ismethod(module.compile)
    assert inspect.ismethod(SAC().compile)


def test_an_option_is_not_given_another_value_without_its_type() -> None:
    with pytest.raises(TypeError, match=r"Careless\.num is an option: it needs its type, or another name"):

        @options
        class Careless(Base):
            num = 3


def test_copies_and_pickles() -> None:
    module = Both(num=3)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert (other.num, other.sizes, other.layer.in_features) == (3, (8,), 3)
    config = Config("a", repeat=2)
    assert pickle.loads(pickle.dumps(config)) == config == replace(Config("b", repeat=2), name="a")


def test_a_config_may_be_frozen_and_have_required_options() -> None:
    assert Config(name="a").kwargs is not Config("a").kwargs
    with pytest.raises(FrozenInstanceError):
        Config("a").repeat = 3
    with pytest.raises(TypeError, match="name"):
        Config()
    with pytest.raises(TypeError):
        Config("a", 2)
    for given in ({"name": 3}, {"name": "a", "kwargs": 3}):
        with pytest.raises(OptionError, match="--data.env."):
            Config(**given)
    with pytest.raises(OptionError, match="--data.env.name=3: expected a string"):
        Config(3)


@pytest.mark.parametrize("arguments", [["--model.help", "SAC"], ["--model.help=SAC"]])
def test_help_is_what_stands_below_an_option(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *arguments]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--model.gamma GAMMA Discount. (type: float, default: 0.99)" in text
    assert "else to this global norm; null: do not." in text  # of a base


def test_an_option_without_the_decorator_is_told() -> None:
    class Forgot(SAC):
        huber_threshold: float = 1.0

    class None_(SAC):
        huber_threshold: ClassVar[float] = 1.0

    with pytest.raises(UsageError, match=r"^Forgot.huber_threshold has a type and a default: @options above"):
        Forgot()
    assert None_().huber_threshold == 1.0
