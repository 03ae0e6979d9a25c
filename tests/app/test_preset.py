"""Presets are settings under a name: every value is one of its methods' settings, and what a person sets beside it wins."""

import csv
import io

import pytest

from pulvinar.app import preset, registry
from pulvinar.app.fit import fit
from pulvinar.app.method_settings import configs
from pulvinar.app.settings_list import settings_of
from pulvinar.cli import main
from pulvinar.core.config import read_toml
from pulvinar.core.errors import ConfigError, FileError, NotFoundError
from pulvinar.learning.runs import RunFolder

FILES = {path.stem: read_toml(path) for path in preset.FOLDER.glob("*.toml")}
PAIRS = [(name, method) for name, content in FILES.items() for method in content["methods"]]
PAPERS = """
preset; method; setting; value; where
troi; troi; n_voxels; 3000; section 3.1
troi; troi; batch_size; 24; section 3.1
troi; troi; mask_batch_size; 24; section 3.1
troi; troi; epochs; 150; section 3.1
troi; troi; pretrained.epochs; 150; section 3.1
troi; troi; n_sessions; 1; first 1h data
troi; troi; n_rounds; 15; about 15 epochs
troi; troi; epochs_per_round; 1; about 15 epochs
troi; troi; rewind; reinitialised; section 2.3
troi; troi; mixing_beta; 0.2; section 2.1
troi; troi; protocol; draws; section 3.3.1
troi; troi; pretrained.hidden; 4096; MindEye2
aggregation-fmri-evc; learning_to_aggregate; roi; ('evc', 'meg_early'); table 1
aggregation-fmri-evc; learning_to_aggregate; train; all; table 1
aggregation-fmri-evc; learning_to_aggregate; use_reliability; True; table 1
aggregation-fmri-evc; learning_to_aggregate; epochs; 15; table 1
aggregation-fmri-evc; learning_to_aggregate; time_sampling; gaussian; table 1
aggregation-fmri-it; learning_to_aggregate; roi; ('it',); table 1
aggregation-fmri-it; learning_to_aggregate; train; mask; table 1
aggregation-fmri-it; learning_to_aggregate; use_reliability; False; table 1
aggregation-fmri-it; learning_to_aggregate; epochs; 15; table 1
aggregation-meg-early; learning_to_aggregate; roi; ('meg_early',); table 1
aggregation-meg-early; learning_to_aggregate; epochs; 40; table 1
aggregation-meg-late; learning_to_aggregate; roi; ('meg_late',); table 1
aggregation-meg-late; learning_to_aggregate; epochs; 40; table 1
aggregation-fmri-it; learning_to_aggregate; batch_pairs; 40; section 2.3
aggregation-fmri-it; learning_to_aggregate; learning_rate; 0.01; section 2.3
aggregation-fmri-it; learning_to_aggregate; crop_share; 0.875; section 2.3
aggregation-fmri-it; learning_to_aggregate; loss; l1; section 2.3
aggregation-fmri-it; learning_to_aggregate; stages; 5; section 2.1
dual-gating-cifar10; dual_gating; epochs; 500; section 3.1
dual-gating-cifar10; dual_gating; batch_size; 512; section 3.1
dual-gating-cifar10; dual_gating; learning_rate; 0.3; section 3.1
dual-gating-cifar10; dual_gating; optimizer; lars; section 3.1
dual-gating-cifar10; dual_gating; warm_share; 0.02; section 3.1 (10 epochs)
dual-gating-cifar10; dual_gating; network; resnet18; section 3.1
dual-gating-cifar10; dual_gating; budget_mode; penalty; equation 3
dual-gating-cifar10; dual_gating; penalty_weight; 5.0; as the first paper
dual-gating-cifar100; dual_gating; blur_second; 0.2; code
dcs-cifar10; gated_ssl; objective; simsiam; section 3
dcs-cifar10; gated_ssl; penalty_weight; 5.0; section 3.3
dcs-cifar10; gated_ssl; bound_weight; 1.0; section 3.3
dcs-cifar10; gated_ssl; crop_smallest; 0.08; code
dcs-cifar10; gated_ssl; saturation; 0.4; code
dcs-cifar10; gated_ssl; solarise; 0.0; code
dcs-cifar10; gated_ssl; batch_size; 256; code
dcs-cifar10; gated_ssl; learning_rate; 0.5; code
dcs-cifar10; gated_ssl; weight_decay; 1e-05; code
dcs-imagenet100; gated_ssl; blur; 0.5; code
dual-gating-cifar10; dual_gating; saturation; 0.2; code
dual-gating-cifar10; dual_gating; crop_smallest; 0.2; code
dual-gating-cifar10; dual_gating; solarise; 0.1; code
contrastive-alexnet; contrastive_encoding; network; alexnet; abstract
contrastive-alexnet; contrastive_encoding; batch_size; 1024; released code
contrastive-alexnet; contrastive_encoding; epochs; 30; released code
contrastive-alexnet; contrastive_encoding; temperature; 0.3; released code
contrastive-alexnet; contrastive_encoding; learning_rate; 0.0001; released code
contrastive-alexnet; regression_tuning; learning_rate; 2.5e-05; released code
contrastive-alexnet; regression_tuning; epochs; 75; released code
contrastive-alexnet; ridge_encoding; pca; 1000; released code
"""
PRINTED = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(PAPERS.strip().partition("\n")[2]), delimiter=";")]


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_every_value_is_a_setting_within_its_bounds(name, method):
    config, pretrained = configs(method, None, [f"preset={name}"])
    chosen = preset.load(name, method)
    for key in chosen.settings:
        assert hasattr(config, key)
    assert all(hasattr(pretrained, key) for key in chosen.pretrained)
    assert FILES[name]["about"]
    assert FILES[name]["source"]


@pytest.mark.long
@pytest.mark.parametrize(("name", "method", "setting", "value", "where"), PRINTED)
def test_presets_have_what_the_papers_print(name, method, setting, value, where):
    config, pretrained = configs(method, None, [f"preset={name}"])
    holder = pretrained if setting.startswith("pretrained.") else config
    assert str(getattr(holder, setting.removeprefix("pretrained."))) == value, where


def test_what_is_set_beside_a_preset_wins(tmp_path):
    config, pretrained = configs("troi", None, ["preset=troi", "n_voxels=50", "pretrained.hidden=16"])
    assert (config.n_voxels, config.mask_batch_size, pretrained.hidden, pretrained.n_blocks) == (50, 24, 16, 4)
    (tmp_path / "given.toml").write_text('preset = "troi"\nepochs = 3\n[pretrained]\nn_blocks = 1\n')
    config, pretrained = configs("troi", str(tmp_path / "given.toml"), ["seed=4"])
    assert (config.epochs, config.seed, pretrained.n_blocks, pretrained.hidden, pretrained.seed) == (3, 4, 1, 4096, 4)


def test_a_setting_that_a_preset_makes_idle_is_refused():
    with pytest.raises(ConfigError, match=r"group_weight=0\.1 does nothing"):  # the network is run by the preset's crops
        configs("learning_to_aggregate", None, ["preset=aggregation-fmri-it", "group_weight=0.1"])
    configs("troi", None, ["preset=troi", "rewind=none"])  # its schedule for stage 2 does nothing there: no mistake


def test_unknown_and_foreign_presets_are_refused():
    with pytest.raises(NotFoundError, match="did you mean 'troi'"):
        configs("troi", None, ["preset=troy"])
    with pytest.raises(ConfigError, match="'troi' is for troi, not for dense_ssl"):
        configs("dense_ssl", None, ["preset=troi"])


def test_presets_are_listed_and_among_the_settings(capsys):
    assert main(["list"]) == 0
    assert "dual-gating-cifar10" in capsys.readouterr().out
    assert settings_of("dual_gating")[0][:2] == (
        "preset",
        "one of dual-gating-cifar10, dual-gating-cifar100, dual-gating-imagenet100, dual-gating-stl10",
    )
    assert all(method in registry.names("methods") for _, method in PAIRS)


def test_a_run_says_its_preset_and_keeps_its_settings(world, tmp_path):
    small = ["hidden=16", "n_blocks=0", "epochs=1", "prior=linear"]
    fit("cross_subject_decoder", data=str(world), out=str(tmp_path / "run"), assignments=["preset=mindeye2", *small])
    run = RunFolder.reopen(tmp_path / "run")
    assert (run.facts["preset"], run.settings()["mixer"], run.settings()["hidden"]) == ("mindeye2", "compat", 16)
    with (run.path / "config.toml").open("a") as file:
        file.write('preset = "none"\n')  # as an earlier version wrote it
    assert run.settings()["mixer"] == "compat"
    (run.path / "config.toml").write_text('preset = "fmri_evc"\n')
    with pytest.raises(FileError, match="fit the run anew"):
        run.settings()
