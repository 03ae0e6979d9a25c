"""Several sets of images, held-out pairs, networks side by side. Oracles: the fit to one set, its own ceilings, sets of pairs,
features laid side by side by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from pulvinar.app.data import absolute, open_data
from pulvinar.core.config import mistakes_of, to_toml
from pulvinar.core.errors import ConfigError, InputError
from pulvinar.core.storage import write_arrays
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs
from pulvinar.data.joined_dissimilarities import join
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.staged import extract
from pulvinar.rsa.aggregation import MeasuredRDMs, _nested_by_pairs, nested_scales
from pulvinar.rsa.aggregation_features import layouts
from pulvinar.rsa.evaluation import Splits
from pulvinar.rsa.methods import learning_to_aggregate as method
from pulvinar.rsa.side_by_side import open_networks
from pulvinar.rsa.targets import measured_rdms
from pulvinar.scores.rdm import condense
from pulvinar.scores.rdm_ceiling import noise_ceiling

QUICK = method.Config(
    network="squeezenet1_0", image_size=64, stages=2, layouts=("none:2",), epochs=8, n_inner_folds=2, n_folds=2, n_repeats=1,
    n_permutations=9, n_bootstrap=9, crops="none", early_stopping=False, protocol="both",
)  # fmt: skip


def one_set(name: str, seed: int, n_images: int = 12, targets: tuple[str, ...] = ("evc",)) -> Dissimilarities:
    """Coarse random pictures, RDMs of three subjects from their colours."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 255, (n_images, 4, 4, 3)).astype(np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    rdm = 1 - np.corrcoef(images.reshape(n_images, -1))
    noise = generator.normal(scale=0.05, size=(3, n_images, n_images))
    rdms = rdm + (noise + noise.transpose(0, 2, 1)) * (1 - np.eye(n_images))
    ids = [f"image-{row:02d}" for row in range(n_images)]
    stimuli = Stimuli(ids=ids, sources=ids, read_image=lambda row: images[row])
    return Dissimilarities(
        name=name, stimuli=stimuli, targets={key: SubjectRDMs(name=key, rdms=rdms) for key in targets}, models={"m": rdm}
    )


@pytest.fixture(scope="module")
def sets() -> tuple[Dissimilarities, Dissimilarities]:
    return one_set("a", 0), one_set("b", 1, n_images=10, targets=("evc", "it"))


def test_joined_rdms_are_those_of_each_set_and_nothing_between(sets):
    first, second = sets
    joined = join(sets)
    evc, it = joined.target("evc"), joined.target("it")
    np.testing.assert_array_equal(evc.rdms[:3, :12, :12], first.target("evc").rdms)
    np.testing.assert_array_equal(evc.rdms[3:, 12:, 12:], second.target("evc").rdms)
    assert np.isnan(evc.rdms[:, :12, 12:]).all()
    assert np.isnan(evc.rdms[:3, 12:, 12:][:, ~np.eye(10, dtype=bool)]).all()
    assert evc.subjects == ["a/subj01", "a/subj02", "a/subj03", "b/subj01", "b/subj02", "b/subj03"]
    assert len(it.rdms) == 3
    assert joined.name == "a + b"
    np.testing.assert_array_equal(joined.stimuli.image(12), second.stimuli.image(0))
    assert len(set(joined.stimuli.sources)) == 22
    assert joined.fingerprint() != join((second, first)).fingerprint()


def test_a_picture_of_two_sets_stands_on_one_side_of_a_fold(sets):
    first, _ = sets
    shown = [first.stimuli.image(row) for row in (5, 2, 7)]
    brighter = [(image.astype(int) * 0.9 + 10).round().astype(np.uint8) for image in shown]
    rdm = first.target("evc").rdms[:, :3, :3]
    ids = ["x", "y", "z"]
    again = Dissimilarities(
        name="again",
        stimuli=Stimuli(ids=ids, sources=ids, read_image=lambda row: brighter[row]),
        targets={"evc": SubjectRDMs(name="evc", rdms=rdm)},
    )
    sources = join((first, again)).stimuli.sources
    assert [sources[12 + row] for row in range(3)] == [sources[row] for row in (5, 2, 7)]
    assert len(set(sources)) == 12


def test_what_cannot_be_joined_is_said(sets):
    first, _ = sets
    with pytest.raises(InputError, match="two or more"):
        join((first,))
    timed = SubjectRDMs(name="evc", rdms=np.stack([first.target("evc").rdms] * 2, axis=1), times=np.array([1.0, 2.0]))
    with pytest.raises(InputError, match="no time points in a, 2 in moved"):
        join((first, dataclasses.replace(first, name="moved", targets={"evc": timed})))


def test_a_source_names_several_sets_with_commas(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in sets:
        images = np.stack([part.stimuli.image(row) for row in range(len(part.stimuli))])
        write_arrays(tmp_path / f"{part.name}.npz", images=images, fmri_evc=part.target("evc").rdms)
    joined = open_data("dissimilarities", "a.npz,b.npz")
    assert len(joined.stimuli) == 22
    assert joined.source == f"{tmp_path}/a.npz,{tmp_path}/b.npz"
    assert absolute("algonauts2019:a.npz,algonauts2019:b.npz").count(str(tmp_path)) == 2
    (tmp_path / "c,d.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    assert len(open_data("dissimilarities", "c,d.npz").stimuli) == 12
    with pytest.raises(InputError, match="missing between"):
        open_data("dissimilarities", "a.npz,,b.npz")


@pytest.mark.long
@pytest.mark.parametrize("loss", ["l1", "correlation"])
@pytest.mark.parametrize("batch_pairs", [None, 10_000])
def test_a_set_twice_is_fitted_as_it_is_once(sets, loss, batch_pairs):
    """Both have the same loss, so its mean has the same gradients; pairs across the two never count."""
    first, _ = sets
    config = dataclasses.replace(QUICK, loss=loss, batch_pairs=batch_pairs)
    networks, scales = open_networks(config, None), []
    for data in (first, join((first, dataclasses.replace(first, name="b")))):
        images = [data.stimuli.image(row) for row in range(len(data.stimuli))]
        everything = torch.ones(len(images), 1, dtype=torch.bool)
        measured = measured_rdms(data, ("evc",), config)
        found = nested_scales(layouts(networks, images, config), measured, everything, list(data.stimuli.sources), config)
        scales.append(found[0].scales)
    torch.testing.assert_close(scales[0], scales[1], atol=2e-3, rtol=0)
    assert (scales[0] - 1).abs().max() > 0.05


@pytest.mark.long
def test_every_set_is_scored_on_its_own_pairs_and_predicts(tmp_path):
    sets = one_set("a", 0, n_images=26), one_set("b", 1, n_images=24, targets=("evc", "it"))
    joined = join(sets)
    config = dataclasses.replace(QUICK, roi=("evc", "it"))
    facts = {"name": joined.name, "path": "", "target": None, "fingerprint": joined.fingerprint()}
    run = RunFolder.create(tmp_path / "run", method="learning_to_aggregate", config_toml=to_toml(config), seed=0, data=facts)
    method.METHOD.train(config, joined, run)
    evaluation = method.evaluate(run, joined, config)
    assert list(evaluation["ceilings"]) == ["evc-a", "evc-b", "it-b"]
    for label, part in (("evc-a", sets[0]), ("evc-b", sets[1])):
        rdms = condense(torch.from_numpy(part.target("evc").rdms))
        assert evaluation["ceilings"][label]["all"]["upper"] == pytest.approx(noise_ceiling(rdms).upper)
        names = [row["name"] for row in evaluation["rows"] if row["target"] == label]
        assert names[0] == "learning_to_aggregate"
        assert {"confound: m", "feature-reweighted RSA", "scales per stage only"} <= set(names)
        ours = next(row for row in evaluation["held_out_pairs"]["rows"] if row["target"] == label)
        assert ours["n_pairs"] == rdms.shape[-1]
        assert "mixed_pairs" not in ours
    assert {row["stage"] for row in evaluation["importance"]["it-b"]} == set(evaluation["stages"])
    assert sorted(path.name for path in (run.path / "artifacts").glob("rdms*")) == ["rdms-a.npz", "rdms-b.npz"]
    assert method.predict(run, sets[1].stimuli, config)["rdm"].shape == (24, 24)


def test_held_out_pairs_are_a_tenth_each_held_out_once():
    splits = Splits.of_pairs(12, seed=3)
    held_out = splits.pairs(2)
    assert held_out.shape == (66, 10)
    assert (held_out.sum(1) == 1).all()
    assert set(held_out.sum(0).tolist()) == {6, 7}
    assert (splits.pairs(0) == ~held_out).all()
    assert not splits.pairs(1).any()
    assert (splits.among(torch.tensor([1, 4, 7])).held_out_pairs.sum(1) == 1).all()


def test_inner_folds_of_pairs_judge_what_they_do_not_train_and_never_the_held_out():
    splits = Splits.of_pairs(10, seed=0)
    nested = _nested_by_pairs(splits.training, splits.held_out_pairs, 3, 0)
    assert not (nested.pairs & nested.judged).any()
    assert not (nested.pairs & splits.held_out_pairs[..., None]).any()
    assert not (nested.judged & splits.held_out_pairs[..., None]).any()
    assert (nested.judged[..., :3].sum(2) == (~splits.held_out_pairs).int()).all()
    assert (nested.pairs[..., 3] == ~splits.held_out_pairs).all()


def test_stages_of_two_networks_are_one_embedding(sets):
    config = dataclasses.replace(QUICK, network="squeezenet1_0,resnet18", centring="embedding")
    networks = open_networks(config, None)
    assert networks.name == "torchvision:squeezenet1_0 + torchvision:resnet18"
    assert [name.partition("/")[0] for name in networks.stages] == ["squeezenet1_0"] * 2 + ["resnet18"] * 2
    images = [sets[0].stimuli.image(row) for row in range(4)]
    features = layouts(networks, images, config)["none:2"].features
    parts = [values.reshape(4, -1) for network in networks.networks for values in extract(network, images, pool=2).values()]
    expected = condense(torch.from_numpy(1 - np.corrcoef(np.concatenate(parts, axis=1))))
    torch.testing.assert_close(features.rdm(torch.ones(features.n_scales, 1))[:, 0].double(), expected, atol=1e-5, rtol=0)


def test_networks_that_do_not_fit_together_are_refused():
    two = dataclasses.replace(QUICK, network="squeezenet1_0,resnet18")
    with pytest.raises(ConfigError, match="3 came for 2 networks"):
        open_networks(two, "a.npz,b.npz,c.npz")
    with pytest.raises(ConfigError, match="stands twice"):
        open_networks(dataclasses.replace(QUICK, network="resnet18,resnet18"), None)
    with pytest.raises(ConfigError, match="names are of one network"):
        open_networks(dataclasses.replace(two, stages=("features.3",)), None)
    looped = dataclasses.replace(two, crops="run_network")
    assert any("there is one network" in text for text in mistakes_of(looped, "learning_to_aggregate"))


def test_a_step_of_the_network_is_of_one_set_and_without_pairs_that_are_left_out(sets):
    joined = join(sets)
    config = dataclasses.replace(
        QUICK, crops="run_network", images_per_step=4, crop_share=1.0, loss="l1", use_reliability=False
    )
    networks = open_networks(config, None)
    images = [joined.stimuli.image(row) for row in range(22)]
    everything = torch.ones(22, dtype=torch.bool)
    rows = [torch.arange(12), torch.arange(12, 22)]
    left_out = torch.rand(231, generator=torch.Generator().manual_seed(0)) < 0.5

    def losses(rdms_changed: bool) -> list[float]:
        measured = measured_rdms(joined, ("evc",), config)
        for target in measured if rdms_changed else ():
            wrong = torch.where(left_out, target.rdms + 5, target.rdms)
            target.expected = MeasuredRDMs(wrong, time_sampling="average", use_reliability=True).expected
        groups = list(joined.stimuli.sources)
        trainer = method.network_trainer(
            config, networks.only, images, measured, everything, groups, sets=rows, left_out=left_out
        )
        seen: list[torch.Tensor] = []
        plain = trainer._random_crops
        trainer._random_crops = lambda pixels: seen.append(pixels) or plain(pixels)
        found = [trainer.step() for _ in range(4)]
        sides = [[int((trainer.pixels == one).flatten(1).all(1).nonzero()[0]) >= 12 for one in batch] for batch in seen]
        assert all(len(set(side)) == 1 for side in sides)
        assert len({side[0] for side in sides}) == 2
        return found

    assert losses(False) == losses(True)
