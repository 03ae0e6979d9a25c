"""The transfer matrix on planted features: own on top, pooled, another data set, and nothing where nothing was tuned."""

import numpy as np
import pytest

from pulvinar.core.errors import InputError
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.data import open_subject
from pulvinar.encoding.encoder import EncoderSettings
from pulvinar.encoding.transfer import as_text, transfer_matrix

N_IMAGES, N_TEST, N_VOXELS, DIM = 150, 60, 30, 8
SETTINGS = EncoderSettings(alphas=(1.0, 10.0, 100.0, 1000.0), pca=None, folds=3)
SUBJECTS = ("one", "two", "three")


class Features:
    """Features of every stimulus as an array: anything with `of` will do."""

    def __init__(self, values):
        self.values = values.astype(np.float32)

    def of(self, stimuli, rows):
        return {"only": self.values[rows]}


class World:
    """Each subject's voxels follow features of its own and shared ones; a tuned network sees a subject's own more clearly."""

    def __init__(self, seed, *, own_share=0.8, shuffled=False):
        rng = np.random.default_rng(seed)
        ids = [f"image-{row}" for row in range(N_IMAGES)]
        self.stimuli = Stimuli(ids=ids, sources=ids)
        shared = rng.standard_normal((N_IMAGES, DIM))
        self.truth, subjects = {}, {}
        for name in SUBJECTS:
            own = rng.standard_normal((N_IMAGES, DIM))
            self.truth[name] = np.hstack([np.sqrt(1 - own_share) * shared, np.sqrt(own_share) * own])
            signal = self.truth[name] @ rng.standard_normal((2 * DIM, N_VOXELS)) / np.sqrt(DIM)
            if shuffled:
                signal = signal[rng.permutation(N_IMAGES)]
            values = (signal + 0.7 * rng.standard_normal(signal.shape)).astype(np.float32)
            points = Geometry.from_points(rng.random((N_VOXELS, 3)))
            subjects[name] = Responses(subject=name, values=values, stimulus_ids=ids, geometry=points)
        split = Split(train=tuple(ids[N_TEST:]), test=tuple(ids[:N_TEST]))
        experiment = Experiment(name="planted", stimuli=self.stimuli, subjects=subjects, split=split, target="one")
        self.opened = {name: open_subject(experiment, name) for name in SUBJECTS}
        self.noise = rng

    def seen(self, clearly, *, blur=1.5):
        """Features of all subjects' truths, blurred, those of the named ones nearly clear."""
        parts = []
        for name, truth in self.truth.items():
            spread = 0.3 if name in clearly else blur
            parts.append(truth + spread * truth.std() * self.noise.standard_normal(truth.shape))
        return Features(np.hstack(parts))


@pytest.fixture(scope="module")
def found():
    world = World(0)
    models = {name: world.seen([name]) for name in SUBJECTS} | {"pooled": world.seen(SUBJECTS)}
    return transfer_matrix(models, world.opened, untuned=world.seen([]), settings=SETTINGS, n_bootstrap=100)


def test_the_diagonal_is_on_top(found):
    """Planted truth: a network that sees subject A clearly serves A best; the pooled one serves all."""
    shares = found.matrix()
    assert shares.shape == (4, 3)
    for column in range(3):
        others = np.delete(shares[:3, column], column)
        assert shares[column, column] >= 0.85 > others.max()
    assert (shares[3] > 0.8).all()
    own = found.comparisons[0]
    assert own.name == "own - other subjects"
    assert own.mean > 0.2
    assert own.p_value == 2 / 2**3  # three subjects cannot say more
    assert "pooled - own" in [one.name for one in found.comparisons]
    assert "(own)" in as_text(found)


def test_gains_are_those_of_the_predictions(found):
    """Invariance: the difference is that of the mean r beside it, inside its interval, and own cells are marked."""
    for cell in found.cells:
        assert cell.gain.difference == pytest.approx(cell.r - cell.r_untuned, abs=1e-9)
        assert cell.gain.difference_low <= cell.gain.difference <= cell.gain.difference_high
        assert cell.is_own == (cell.model == cell.subject)


@pytest.mark.long
def test_nothing_is_improved_where_responses_are_shuffled():
    """Null: responses shuffled over images; no interval of a difference excludes 0 by much, shares lie about chance."""
    cells = []
    for seed in range(3):
        world = World(seed, shuffled=True)
        models = {name: world.seen([name]) for name in SUBJECTS}
        cells += transfer_matrix(models, world.opened, untuned=world.seen([]), settings=SETTINGS, n_bootstrap=100).cells
    assert abs(np.mean([cell.gain.difference for cell in cells])) < 0.03
    assert sum(cell.gain.difference_p_value < 0.05 for cell in cells) <= 4
    assert 0.3 < np.mean([cell.share_improved for cell in cells]) < 0.7


def test_the_same_network_improves_nothing():
    world = World(1)
    same = world.seen([])
    found = transfer_matrix({"same": same}, world.opened, untuned=same, settings=SETTINGS, n_bootstrap=20)
    assert (found.matrix() == 0).all()
    assert all(cell.gain.difference == 0 for cell in found.cells)


def test_another_data_set_has_its_own_images():
    """Transfer to another set: other stimuli, the same function; without owners models are compared with chance."""
    here, there = World(2), World(3)

    class Both:
        def __init__(self, clear):
            self.of_set = {id(here.stimuli): here.seen(clear), id(there.stimuli): there.seen(clear)}

        def of(self, stimuli, rows):
            return self.of_set[id(stimuli)].of(stimuli, rows)

    opened = {f"{name}, other set": given for name, given in there.opened.items()} | here.opened
    found = transfer_matrix(
        {"tuned": Both(SUBJECTS)}, opened, untuned=Both([]), settings=SETTINGS, n_bootstrap=20, n_permutations=50
    )
    assert found.matrix().min() > 0.8
    assert [one.name for one in found.comparisons] == ["tuned - chance"]
    assert found.comparisons[0].p_value == 2 / 2**6


def test_what_does_not_fit_is_refused():
    world = World(0)
    with pytest.raises(InputError, match="0 models"):
        transfer_matrix({}, world.opened, untuned=world.seen([]))
    with pytest.raises(InputError, match="owners: four"):
        transfer_matrix({"one": world.seen([])}, world.opened, untuned=world.seen([]), owners={"four": "one"})
