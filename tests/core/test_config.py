"""Settings. Oracles: tomllib reads back what is written; every planted mistake is named."""

import tomllib
from dataclasses import dataclass
from typing import Literal

import pytest

from pulvinar.core import config
from pulvinar.core.errors import ConfigError, FileError


@dataclass(frozen=True, kw_only=True)
class Example:
    """One field of every supported kind."""

    steps: int = config.setting(100, "how many steps")
    rate: float = config.setting(1e-5, "learning rate")
    flag: bool = False
    name: str = "plain"
    mode: Literal["sum", "mean", 2] = "sum"
    layers: tuple[str, ...] = ("a", "b")
    sizes: tuple[int, ...] = ()
    limit: float | None = None

    def problems(self) -> list[str]:
        return ["steps must be positive"] if self.steps < 1 else []


def test_text_and_toml_values_become_typed_values():
    built = config.build(
        Example,
        {"steps": "7", "rate": "3", "flag": "yes", "mode": "2", "layers": '["c", d]', "sizes": [1, 2.0], "limit": "0.5"},
        name="m",
    )
    wanted = Example(steps=7, rate=3.0, flag=True, mode=2, layers=("c", "d"), sizes=(1, 2), limit=0.5)
    assert built == wanted
    assert config.build(Example, {"limit": "none", "layers": "x, y"}, name="m") == Example(layers=("x", "y"))


def test_every_mistake_is_listed_at_once():
    values = {"stepz": 1, "rate": "fast", "flag": 2, "mode": "max", "steps": 0, "sizes": [1.5], "name": 3}
    with pytest.raises(ConfigError) as caught:
        config.build(Example, values, name="troi")
    lines = str(caught.value).splitlines()
    assert lines == [
        "'stepz' is not a setting of troi; did you mean 'steps'?",
        "troi.rate is a number, not 'fast'",
        "troi.flag is true or false, not 2",
        "troi.mode is one of 'sum', 'mean', 2, not 'max'",
        "troi.sizes is a list of a whole number, not [1.5]",
        "troi.name is text, not 3",
        "troi.steps must be positive",
    ]


def test_mistakes_found_while_constructing_join_the_list():
    @dataclass(frozen=True, kw_only=True)
    class Strict:
        steps: int = 1

        def __post_init__(self) -> None:
            if self.steps < 1:
                raise ConfigError("steps must be positive")

    with pytest.raises(ConfigError, match=r"(?s)'stp' is not a setting.*steps must be positive"):
        config.build(Strict, {"stp": 1, "steps": 0}, name="m")


@pytest.mark.parametrize("value", [True, 1.5, "1.5", "x", float("inf")])
def test_whole_numbers_are_whole(value):
    with pytest.raises(ConfigError, match=r"m\.steps is a whole number"):
        config.build(Example, {"steps": value}, name="m")


def test_toml_text_reads_back_equal():
    odd = 'quote " backslash \\ tab \t return \r newline \n bell \x07 delete \x7f ü'
    for example in (Example(), Example(name=odd, rate=1e300, limit=0.1, flag=True, layers=(), sizes=(3,))):
        text = config.to_toml(example)
        assert config.build(Example, tomllib.loads(text), name="m") == example
    assert "# how many steps\nsteps = 100\n" in config.to_toml(Example())


def test_assignments_win_over_the_file(tmp_path):
    (tmp_path / "x.toml").write_text('steps = 5\nname = "from file"\n')
    loaded = config.load(Example, name="m", file=tmp_path / "x.toml", assignments=["steps=6", "rate = 1e-3"])
    assert loaded == Example(steps=6, name="from file", rate=1e-3)
    with pytest.raises(ConfigError, match="these are not: 'steps'"):
        config.load(Example, name="m", assignments=["steps", "rate=1"])


@pytest.mark.parametrize("content", [b"a = ", b"\xff = 1", b"a = 1\na = 2"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(FileError, match=r"x\.toml: not valid TOML"):
        config.read_toml(tmp_path / "x.toml")


def test_suggest_and_describe():
    assert config.suggest("los", ["loss", "seed"]) == "; did you mean 'loss'?"
    assert config.suggest("zzz", ["loss", "seed"]) == "; there are: loss, seed"
    rows = {row[0]: row[1:] for row in config.describe(Example)}
    assert rows["steps"] == ("a whole number", 100, "how many steps")
    assert rows["limit"][0] == "a number or none"
    assert rows["layers"][0] == "a list of text"


def test_of_two_values_of_a_setting_the_last_counts_and_that_is_said(capsys):
    assert config.parse_assignments(["roi=V1", "seed=1", "roi=V1"]) == {"roi": "V1", "seed": "1"}
    assert capsys.readouterr().err == ""
    assert config.parse_assignments(["roi=V1", "seed=1", "roi=IT"]) == {"roi": "IT", "seed": "1"}
    assert "'roi' is given as V1 and IT; the last counts (a list is written roi=a,b)" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="'roi' is given as V1 and IT; keep one of them"):
        config.parse_assignments(["roi=V1", "seed=1", "roi=IT"], refuse_repeated=True)
