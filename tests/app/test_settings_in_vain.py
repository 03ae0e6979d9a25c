"""A setting that does nothing where it is given is refused with what it counts with, whichever way it was given."""

import dataclasses
import typing

import pytest

from pulvinar.app import registry
from pulvinar.app.fit import fit
from pulvinar.app.method_settings import configs, refuse_useless_pretrained
from pulvinar.app.sweeps.grid import cells
from pulvinar.app.sweeps.sweep import sweep
from pulvinar.cli import main
from pulvinar.core.config import build, holds, setting, to_toml
from pulvinar.core.errors import ConfigError
from pulvinar.learning.runs import RunFolder

METHODS = {name: registry.method(name).config for name in registry.names("methods")}
CONDITIONAL = [
    (method, field.name)
    for method, config in METHODS.items()
    for field in dataclasses.fields(config)
    if field.metadata["counts"]
]


def _violated(condition: str, config: type) -> list[str]:
    """Settings that make a condition of `setting` false: its first part of every alternative turned round."""
    hints, pairs = typing.get_type_hints(config), []
    for alternative in condition.split(" or "):
        parts = [part for part in alternative.split(" and ") if any(sign in part for sign in "=<>")]
        name, sign, text = next(
            (name, sign, part.partition(sign)[2])
            for part in parts
            for sign in ("!=", "=", ">", "<")
            if sign in part and (name := part.partition(sign)[0]) in hints
        )
        if sign != "=":
            pairs.append(f"{name}={text}")
            continue
        other = [str(choice) for choice in typing.get_args(hints[name]) if str(choice) != text]
        pairs.append(f"{name}={other[0] if other else {'true': 'false', 'false': 'true'}[text]}")
    return pairs


@pytest.mark.long
@pytest.mark.parametrize(("method", "name"), CONDITIONAL)
def test_every_conditional_setting_is_refused_where_its_condition_fails(method, name):
    config = METHODS[method]
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    condition = field.metadata["counts"]
    known = {part.name for part in dataclasses.fields(config)}
    words = [part for alternative in condition.split(" or ") for part in alternative.split(" and ")]
    if not any(word.split("=")[0].split("<")[0].split(">")[0].rstrip("!") in known for word in words):
        assert holds(condition, config())  # what the method has no setting for
        return
    value = "x" if field.default is None else field.default
    value = "1" if typing.get_type_hints(config)[name] in (int | None, float | None) else value
    value = ",".join(map(str, value)) if isinstance(value, tuple) else value
    with pytest.raises(ConfigError) as caught:
        configs(method, None, [f"{name}={value}", *_violated(condition, config)])
    assert f"{method}.{name}=" in str(caught.value)
    assert f"does nothing here: it counts with {condition} only" in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_s_own_list_of_all_settings_is_taken(method, tmp_path):
    """It states every default, idle ones too; that is a record and no choice."""
    (tmp_path / "config.toml").write_text(to_toml(METHODS[method]()))
    assert configs(method, str(tmp_path / "config.toml"), [])[0] == METHODS[method]()


def test_settings_of_the_pretrained_decoder_are_no_settings_of_troi(tmp_path, capsys):
    """All at once, each with where it counts; the same file is right for the decoder itself, and as its table."""
    file = tmp_path / "decoder.toml"
    file.write_text('hidden = 4096\nn_blocks = 4\nmixer = "compat"\nlearning_rate = 3e-4\n')
    assert main(["fit", "troi", "--data", "nowhere", "--out", str(tmp_path / "run"), "--config", str(file)]) == 2
    said = capsys.readouterr().err
    for name in ("hidden=4096", "n_blocks=4", "mixer=compat"):
        assert f"troi.{name} does nothing here: it counts with pretrain=false only" in said
    assert "that of the cross_subject_decoder it reads is pretrained.hidden" in said
    assert not (tmp_path / "run").exists()
    assert configs("cross_subject_decoder", str(file), [])[0].hidden == 4096
    (tmp_path / "table.toml").write_text(f"[pretrained]\n{file.read_text()}")
    troi, decoder = configs("troi", str(tmp_path / "table.toml"), ["n_voxels=50"])
    assert (troi.hidden, decoder.hidden) == (256, 4096)
    assert configs("troi", None, ["pretrain=false", "hidden=64"])[0].hidden == 64


def test_scoring_in_vain_is_refused(tmp_path):
    from pulvinar.app.evaluate import evaluate

    (tmp_path / "run.json").write_text('{"method": "dual_gating", "status": "finished", "seed": 0, "data": {}}')
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(ConfigError, match=r"temperature=0.5 does nothing here: it counts with weighting=exponential only"):
        evaluate(str(tmp_path), assignments=["temperature=0.5"])


def test_a_sweep_s_setting_counts_somewhere_or_is_refused(world, tmp_path):
    grid = {"method": "troi", "data": str(world), "out": str(tmp_path / "out")}
    text = "\n".join(f'{key} = "{value}"' for key, value in grid.items())
    (tmp_path / "grid.toml").write_text(f"{text}\n[set]\nhidden = 16\n[grid]\nn_folds = [1, 2]\n")
    with pytest.raises(ConfigError, match="'hidden' does nothing in any cell: it counts with pretrain=false only"):
        sweep(str(tmp_path / "grid.toml"))
    from pulvinar.app.sweeps.plan import _counting

    shared = _counting(cells({**grid, "set": {"hidden": 16}, "grid": {"pretrain": [True, False]}}))
    assert [cell.settings for cell in shared] == [{"pretrain": True}, {"pretrain": False, "hidden": 16}]


def test_what_a_pretrained_run_has_made_up_is_not_set_beside_it(finished, world, tmp_path):
    """The pretrained run was trained with centre=true; the same again is nothing new, and a record of all settings is taken."""
    pretrained, method, config = str(finished / "pretrained"), "troi", METHODS["troi"]
    troi = registry.method(method)
    said = r"troi.centre=False does nothing here: .*pretrained was trained with centre=True"
    with pytest.raises(ConfigError, match=said):
        fit(method, data=str(world), out=str(tmp_path / "run"), assignments=["centre=false"], pretrained=pretrained)
    assert not (tmp_path / "run").exists()
    (tmp_path / "given.toml").write_text("centre = false\n")
    with pytest.raises(ConfigError, match=said):
        refuse_useless_pretrained(troi, config(centre=False), pretrained, str(tmp_path / "given.toml"), [])
    refuse_useless_pretrained(troi, config(centre=True), pretrained, None, ["centre=true"])
    recorded = RunFolder.reopen(pretrained)
    (tmp_path / "other").mkdir()
    for file in ("run.json", "config.toml"):
        text = (recorded.path / file).read_text()
        (tmp_path / "other" / file).write_text(text.replace("centre = true", "centre = false"))
    (tmp_path / "all.toml").write_text(to_toml(config()))
    refuse_useless_pretrained(troi, config(), str(tmp_path / "other"), str(tmp_path / "all.toml"), [])


@pytest.mark.parametrize(("option", "value"), [("--steps", "5"), ("--guidance", "3"), ("--steps", "20")])
def test_what_a_large_generator_takes_is_refused_without_one(option, value, finished, capsys):
    assert main(["reconstruct", str(finished), option, value]) == 2
    assert f"{option} {value} does nothing here".replace("3 does", "3.0 does") in capsys.readouterr().err


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Config:
    kind: typing.Literal["plain", "wide"] = setting("plain", "kind")
    weight: float = setting(0.0, "weight")
    limit: int | None = setting(None, "limit")
    names: tuple[str, ...] = setting((), "names")
    width: int = setting(3, "width", counts="kind=wide and weight>0 or limit!=none")


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({}, False),
        ({"kind": "wide"}, False),
        ({"weight": 1.0}, False),
        ({"kind": "wide", "weight": 1.0}, True),
        ({"limit": 2}, True),
        ({"limit": 0}, True),
    ],
)
def test_conditions_are_read_as_they_are_written(given, counts):
    """Oracle: the same in Python."""
    config = _Config(**given)
    assert counts == ((config.kind == "wide" and config.weight > 0) or config.limit is not None)
    assert holds("kind=wide and weight>0 or limit!=none", config) == counts
    assert holds("names!=()", config) is False
    assert holds("weight<1", config) == (config.weight < 1)
    assert holds("unknown=3", config)
    with pytest.raises(ValueError, match="is no condition"):
        holds("kind is wide", config)
    if counts:
        assert build(_Config, {**given, "width": 5}, name="x", given=("width",)).width == 5
    else:
        with pytest.raises(ConfigError, match=r"x.width=5 does nothing here: it counts with kind=wide and weight>0 or limit"):
            build(_Config, {**given, "width": 5}, name="x", given=("width",))
        assert build(_Config, {**given, "width": 5}, name="x").width == 5  # read from a record
