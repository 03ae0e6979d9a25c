"""Distillation from a teacher that a test writes: fit, resume, evaluate; what does not fit is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from pulvinar.core.config import build, mistakes_of
from pulvinar.core.errors import ConfigError, InputError
from pulvinar.data.image_set import ImageSet
from pulvinar.gating import distillation as training
from pulvinar.gating.backbone_scores import gated_features
from pulvinar.gating.methods import distillation
from pulvinar.gating.methods.distillation import Config
from pulvinar.learning import runs
from pulvinar.learning.backbone_runs import load_backbone, save_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings, plain_view
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape


@pytest.fixture(scope="module")
def data() -> ImageSet:
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = generator.integers(0, 200, (120, 16, 16, 3), dtype=np.uint8)
    images[labels == 1, :, :, 0] += 40
    return ImageSet(name="reds", train=images[:90], test=images[90:], train_labels=labels[:90], test_labels=labels[90:])


def open_run(path, method="distillation", config="", images="other") -> RunFolder:
    return RunFolder.create(path, method=method, config_toml=config, seed=0, data={"fingerprint": images})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, data) -> RunFolder:
    """A gated network whose statistics are of the images."""
    network = GatedResNet(resnet_shape("resnet18", size=16, width=0.25), size=16).initialise(torch.Generator().manual_seed(0))
    pixels = plain_view(torch.from_numpy(data.train), ViewSettings())
    with torch.no_grad():
        for _ in range(10):
            network(pixels)
            network(pixels, gated=True)
    run = open_run(tmp_path_factory.mktemp("runs") / "teacher", method="dual_gating")
    save_backbone(run, network.eval(), ViewSettings())
    run.finish()
    return RunFolder.reopen(run.path)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [pytest.param("simreg", marks=pytest.mark.slow), "seed"])
def test_a_student_is_trained_resumed_and_scored(objective, data, teacher, tmp_path, monkeypatch):
    """Oracle of the resumed fit: the uninterrupted one, bit for bit."""
    config = Config(objective=objective, epochs=3, batch_size=30, learning_rate=0.1, queue=64)
    whole = open_run(tmp_path / "whole", images=data.fingerprint())
    distillation.METHOD.train(config, data, whole, teacher)
    losses = [record["loss"] for record in whole.records]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    stopped = open_run(tmp_path / "stopped")
    save = RunFolder.save

    def save_and_stop(self, state, *, name="latest"):
        save(self, state, name=name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            distillation.METHOD.train(config, data, stopped, teacher)
    resumed = RunFolder.reopen(stopped.path)
    distillation.METHOD.train(config, data, resumed, teacher)
    ours, theirs = (load_backbone(run).network.state_dict() for run in (resumed, whole))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert (resumed.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()

    evaluation = distillation.evaluate(whole, data, config)
    assert evaluation["rows"][0]["name"] == "distillation"
    assert evaluation["knn_dense"] > 0.6
    assert 0 < evaluation["mac_share"] < 1
    assert (whole.path / "evaluation.json").is_file()
    assert "student of" in distillation.as_text(evaluation)


@pytest.mark.long
def test_the_rate_is_the_objectives_own_unless_given_and_rises_before_it_falls(data, teacher, tmp_path, monkeypatch):
    rates = {"simreg": 10.0, "seed": 1.0}
    assert {name: Config(objective=name).peak_rate for name in rates} == rates
    seen = []
    monkeypatch.setattr(training, "set_rates", lambda optimizer, peak, share: seen.append((peak, share)))
    config = Config(epochs=4, batch_size=45, learning_rate=0.2, warm_share=0.5)  # 2 steps an epoch
    distillation.METHOD.train(config, data, open_run(tmp_path / "run"), teacher)
    assert [peak for peak, _ in seen] == [0.2] * 8
    half = np.cos(np.pi * np.arange(4) / 4) / 2 + 0.5
    np.testing.assert_allclose([share for _, share in seen], [0, 0.25, 0.5, 0.75, *half], atol=1e-12)


def test_widths_are_the_rounded_mean_open_counts_of_the_gates(data, teacher):
    """Oracle: a sum over the gates of each image."""
    source = load_backbone(teacher)
    shape, origin = distillation.student_shape(Config(), source, data.train)
    with torch.no_grad():
        gates = source.network(plain_view(torch.from_numpy(data.train), source.views), gated=True).gates
    expected = [max(1, round(float(gate.sum(1).mean()))) for gate in gates]
    assert np.abs(np.array(shape.gate_channels) - expected).max() <= 1  # batches of another size round sums otherwise
    assert origin == "gates of the teacher"
    counts = gated_features(source.network, data.train, views=source.views).channels.mean_open()
    assert list(shape.gate_channels) == counts


@pytest.mark.long
def test_a_teacher_without_gates_takes_the_budget_or_another_runs_gates(data, teacher, tmp_path):
    network = GatedResNet(resnet_shape("resnet18", size=16, width=0.25), size=16, passes=("dense",))
    network.initialise(torch.Generator().manual_seed(1))
    run = open_run(tmp_path / "dense", method="dense_ssl")
    save_backbone(run, network, ViewSettings())
    run.finish()
    config = Config(epochs=1, batch_size=30, budget=0.4)
    student = open_run(tmp_path / "student")
    distillation.METHOD.train(config, data, student, run)
    assert 0.39 < student.facts["mac_share"] <= 0.4
    with_gates = dataclasses.replace(config, gates=str(teacher.path))
    shape, _ = distillation.student_shape(with_gates, distillation.METHOD.ready(with_gates, data, run).gates, data.train)
    assert shape == distillation.student_shape(config, load_backbone(teacher), data.train)[0]
    with pytest.raises(InputError, match="has no gated pass"):
        distillation.METHOD.ready(dataclasses.replace(config, teacher_branch="gated"), data, run)
    with pytest.raises(InputError, match="network has no gates"):
        distillation.METHOD.ready(dataclasses.replace(config, gates=str(run.path)), data, teacher)


def test_what_does_not_fit_is_refused(data, teacher, tmp_path):
    with pytest.raises(InputError, match="fewer than a batch of 256"):
        distillation.METHOD.ready(Config(), data, teacher)
    quick = Config(batch_size=30)
    with pytest.raises(InputError, match="needs a teacher"):
        distillation.METHOD.ready(quick, data, None)
    with pytest.raises(InputError, match="has not finished"):
        distillation.METHOD.ready(quick, data, open_run(tmp_path / "unfinished"))
    other = dataclasses.replace(data, train=data.train[:, :8, :8], test=data.test[:, :8, :8])
    with pytest.raises(InputError, match=r"the teacher saw 16 x 16"):
        distillation.METHOD.ready(quick, other, teacher)
    wrong = mistakes_of(Config(momentum=1.5, budget=0, epochs=0), "distillation")
    assert len(wrong) == 3
    with pytest.raises(ConfigError, match="teacher_branch is one of 'dense', 'gated'"):
        build(Config, {"teacher_branch": "both"}, name="distillation")
