"""What older runs, files and command lines call a backbone is still read, as what it is called now."""

import json
import shutil

import pytest

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.method_settings import configs
from pulvinar.app.sweeps.grid import cells
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError
from pulvinar.encoding.fit import load_encoder
from pulvinar.encoding.models import tags_of
from pulvinar.encoding.tuned_networks import load_tuned, network_state, open_network
from pulvinar.learning.runs import RunFolder


def as_older(run):
    """A run that trained what it starts from, as older versions wrote it."""
    (run / "pretrained").rename(run / "backbone")
    facts = json.loads((run / "run.json").read_text())
    facts["backbone"] = facts.pop("pretrained")
    (run / "run.json").write_text(json.dumps(facts))
    return run


def test_settings_of_the_pretrained_run(tmp_path):
    """backbone.KEY and [backbone] are pretrained.KEY and [pretrained]; of a method without one they are still refused."""
    (tmp_path / "given.toml").write_text("[backbone]\nhidden = 24\n")
    _, inner = configs("troi", str(tmp_path / "given.toml"), ["backbone.epochs=3"])
    assert (inner.hidden, inner.epochs) == (24, 3)
    with pytest.raises(ConfigError, match="dual_gating starts from no pretrained run; these are not settings of it: epochs"):
        configs("dual_gating", None, ["backbone.epochs=3"])


def test_settings_and_values_that_have_another_name():
    config, _ = configs("learning_to_aggregate", None, ["backbone=alexnet", "crops=run_backbone"])
    assert (config.network, config.crops) == ("alexnet", "run_network")
    with pytest.raises(ConfigError, match="'backbone' is called network now, and both are given; keep network"):
        configs("ridge_encoding", None, ["backbone=alexnet", "network=resnet18"])
    with pytest.raises(
        ConfigError, match="contrastive_encoding starts from no pretrained run; its network is a setting: network=X"
    ):
        fitting.fit("contrastive_encoding", data="none", out="none", pretrained="X")


def test_an_older_preset_choice_wins_over_the_preset():
    config, _ = configs("learning_to_aggregate", None, ["preset=aggregation-fmri-it", "backbone=resnet18"])
    assert config.network == "resnet18"


@pytest.mark.long
def test_an_older_run_is_scored_shown_and_resumed(finished, world, tmp_path, quick):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = evaluating.evaluate(str(run), controls=False)["rows"]
    as_older(run)
    assert evaluating.evaluate(str(run), controls=False)["rows"] == before
    assert "html" in evaluating.report(str(run))["report"]
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"status": "running"}))
    for path in (run / "checkpoints").glob("*"):
        path.unlink()
    fitting.fit("troi", data=str(world), out=str(run), resume=True, assignments=quick)
    assert RunFolder.reopen(run).finished
    assert not (run / "pretrained").exists()  # the older folder was used, nothing was trained again
    assert evaluating.evaluate(str(run), controls=False)["rows"] == before


def test_an_older_grid_and_command_line(tmp_path, capsys):
    grid = {"method": "troi", "data": "a", "out": "o", "set": {"backbone": {"hidden": 8}}, "grid": {"backbone.epochs": [2, 3]}}
    made = cells(grid)
    assert [cell.name for cell in made] == ["backbone.epochs=2", "backbone.epochs=3"]  # so that an older sweep goes on
    assert made[0].assignments == ["pretrained.hidden=8", "pretrained.epochs=2"]
    (named,) = cells({"method": "troi", "data": "a", "out": "o", "cell": [{"name": "one", "backbone": "RUN"}]})
    assert named.pretrained == "RUN"
    (network,) = cells({"method": "ridge_encoding", "data": "a", "out": "o", "cell": [{"name": "one", "backbone": "alexnet"}]})
    assert network.pretrained is None
    assert (
        main(["fit", "troi", "--data", "none", "--out", str(tmp_path / "run"), "--backbone", "RUN", "--set", "pretrain=false"])
        == 2
    )
    assert "starts from none; leave out pretrained" in capsys.readouterr().err


def test_networks_and_encoders_of_an_older_tuned_run(tmp_path):
    run = RunFolder.create(tmp_path / "run", method="contrastive_encoding", config_toml="", seed=0, data={})
    network = open_network("embedded", stages=None, image_size=32)
    for name in ("backbone-one", "backbone-untuned"):
        run.save(network_state(network), name=name)
    run.save({"backbone": "one", "alphas": [1.0]}, name="encoder-one")
    assert tags_of(run) == ["untuned", "one"]
    assert load_tuned(run, "one").checksum() == network.checksum()
    assert load_encoder(run, "one")["network"] == "one"
