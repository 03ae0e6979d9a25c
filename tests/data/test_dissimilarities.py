"""RDMs of subjects as a data object and from .npz: what is told apart, and what is refused with its place."""

from pathlib import Path

import numpy as np
import pytest

from pulvinar.core.errors import DegenerateError, FileError, InputError, NotFoundError
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs, check_rdm
from pulvinar.data.dissimilarity_files import image_ids, read_npz, read_npz_arrays
from pulvinar.data.stimuli import Stimuli

N_IMAGES = 6


def rdms(*leading: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((*leading, N_IMAGES, N_IMAGES))
    values = values + np.swapaxes(values, -1, -2)
    values[..., np.arange(N_IMAGES), np.arange(N_IMAGES)] = 0
    return values


def stimuli(n_images: int = N_IMAGES) -> Stimuli:
    return Stimuli(ids=image_ids(n_images), sources=image_ids(n_images))


@pytest.fixture
def write(tmp_path: Path):
    def write(**arrays: np.ndarray) -> Path:
        np.savez(tmp_path / "rdms.npz", **arrays)
        return tmp_path / "rdms.npz"

    return write


def test_an_rdm_passes_in_every_number_type() -> None:
    for dtype in (np.float32, np.float64, np.float16):
        check_rdm(rdms(2).astype(dtype), "x")
    check_rdm((rdms() > 1).astype(np.uint8), "x")
    check_rdm(rdms() > 1, "x")


def spoil(place: tuple[int, ...], value: float) -> np.ndarray:
    made = rdms(2)
    made[place] = value
    return made


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (rdms(2)[..., :-1], InputError, r"'it': a square matrix is needed, \(2, 6, 5\) came"),
        (rdms(2)[0], InputError, r"\(subject, image, image\) is needed, \(6, 6\) came"),
        (rdms(2)[:, :2, :2], InputError, "3 images or more are needed, 2 came"),
        (spoil((1, 2, 3), 9.0), InputError, r"of subj02: not symmetric; entries differ by .* at \(2, 3\)"),
        (
            spoil((1, 2, 3), np.nan),
            InputError,
            r"of subj02: not symmetric; the pair at \(2, 3\) is missing",
        ),
        (spoil((0, 4, 4), 1.0), InputError, "of subj01: the diagonal must be zero, its largest entry is 1"),
        (np.stack([rdms(), np.ones((6, 6)) - np.eye(6)]), DegenerateError, "of subj02: all pairs have the same"),
        (np.zeros((2, 6, 6)), DegenerateError, "of subj01: all pairs have the same"),
        (np.ones((2, 6, 6), complex), InputError, "numbers are needed, complex128"),
        (np.zeros((2, 0, 6, 6)), InputError, "numbers are needed"),
    ],
)
def test_what_is_no_rdm_is_named(values: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SubjectRDMs(name="it", rdms=values)


def test_the_time_point_is_named() -> None:
    movie = rdms(2, 4)
    movie[1, 2] = np.ones((6, 6)) - np.eye(6)
    with pytest.raises(DegenerateError, match=r"'meg' of subj02 at \(2,\): all pairs"):
        SubjectRDMs(name="meg", rdms=movie)


def test_small_numbers_are_checked_as_strictly() -> None:
    """The tolerance follows the largest entry: distances of 1e-8 may not be asymmetric by 1e-8 either."""
    with pytest.raises(InputError, match="not symmetric"):
        check_rdm(spoil((0, 2, 3), 9.0)[0] * 1e-8, "x")
    check_rdm(rdms() * 1e-8, "x")


def test_names_and_times_must_fit() -> None:
    with pytest.raises(InputError, match="2 subjects in the array, 1 names"):
        SubjectRDMs(name="it", rdms=rdms(2), subjects=("a",))
    with pytest.raises(InputError, match="3 times for 4 time points"):
        SubjectRDMs(name="it", rdms=rdms(2, 4), times=np.arange(3))
    assert SubjectRDMs(name="it", rdms=rdms(2)).subjects == ("subj01", "subj02")


def test_targets_and_models_are_over_the_images() -> None:
    target = SubjectRDMs(name="it", rdms=rdms(2))
    with pytest.raises(InputError, match="'it' are over 6 images, but there are 7 images"):
        Dissimilarities(name="x", stimuli=stimuli(7), targets={"it": target})
    with pytest.raises(InputError, match="model RDM 'v1' is over 5 images, but there are 6"):
        Dissimilarities(name="x", stimuli=stimuli(), targets={"it": target}, models={"v1": rdms()[:5, :5]})
    with pytest.raises(InputError, match="model RDM 'v1': not symmetric"):
        Dissimilarities(name="x", stimuli=stimuli(), targets={"it": target}, models={"v1": spoil((0, 2, 3), 9.0)[0]})
    with pytest.raises(InputError, match="no RDMs of any subject"):
        Dissimilarities(name="x", stimuli=stimuli(), targets={})
    whole = Dissimilarities(name="x", stimuli=stimuli(), targets={"it": target})
    assert whole.target("it") is target
    with pytest.raises(NotFoundError, match="did you mean 'it'"):
        whole.target("itt")


def test_fingerprint_follows_the_rdms() -> None:
    made = [
        Dissimilarities(name="x", stimuli=stimuli(), targets={"it": SubjectRDMs(name="it", rdms=rdms(2, seed=seed))})
        for seed in (0, 0, 1)
    ]
    assert made[0].fingerprint() == made[1].fingerprint() != made[2].fingerprint()


def test_arrays_are_told_apart_by_shape(write) -> None:
    path = write(
        fmri_evc=rdms(2),
        meg_early=rdms(3, 4),
        fmri_single=rdms(),
        pixels=rdms(),
        model_rdms=rdms(2, seed=1),
        model_names=np.array(["v1", "hmax"]),
        images=np.zeros((N_IMAGES, 4, 5, 3), np.uint8),
        category=np.array(["face"] * N_IMAGES),
        subjects=np.array(["ann", "bob"]),
        times=np.arange(4.0),
        category_vectors=np.zeros((N_IMAGES, N_IMAGES), np.uint8),
        human=np.zeros(N_IMAGES),
        loadings=np.zeros((N_IMAGES, 2)),
    )
    found = read_npz(path)
    assert {name: target.rdms.shape[:-2] for name, target in found.targets.items()} == {
        "evc": (2,),
        "meg_early": (3, 4),
        "single": (1,),
    }
    assert sorted(found.models) == ["hmax", "pixels", "v1"]
    assert found.target("evc").subjects == ("ann", "bob")
    assert found.target("meg_early").subjects == ("subj01", "subj02", "subj03")
    assert list(found.target("meg_early").times) == [0, 1, 2, 3]
    assert found.stimuli.ids[0] == "image_01"
    assert found.stimuli.labels == ["face"] * N_IMAGES
    assert found.stimuli.image(5).shape == (4, 5, 3)
    np.testing.assert_array_equal(found.target("evc").rdms, rdms(2))


def test_official_names(write) -> None:
    """Those of the challenge's MATLAB files."""
    path = write(EVC_RDMs=rdms(2), IT_RDMs=rdms(2), MEG_RDMs_early=rdms(2, 3), MEG_RDMs_late=rdms(2, 3))
    assert list(read_npz(path).targets) == ["evc", "it", "meg_early", "meg_late"]


def test_ids_have_the_digits_they_need() -> None:
    assert image_ids(118)[7] == "image_008"
    assert image_ids(3)[0] == "image_01"


def test_ids_of_the_file_are_kept(write) -> None:
    names = np.array(list("abcdef"))
    assert read_npz(write(fmri_evc=rdms(2), ids=names)).stimuli.ids == list(names)
    assert read_npz(write(fmri_evc=rdms(2), images=names)).stimuli.ids == list(names)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"fmri_evc": rdms(2)[..., :-1]}, r"rdms.npz: RDMs 'evc': a square matrix is needed, \(2, 6, 5\)"),
        ({"IT_RDMs": rdms(2)[..., :-1]}, "RDMs 'it': a square matrix"),
        ({"brain": rdms(2)[..., :-1]}, "RDMs 'brain': a square matrix"),
        ({"fmri_evc": spoil((1, 2, 3), 9.0)}, "RDMs 'evc' of subj02: not symmetric"),
        ({"fmri_evc": spoil((1, 2, 3), np.nan)}, "RDMs 'evc' of subj02: not symmetric; the pair at .* is missing"),
        ({"fmri_evc": spoil((1, 2, 2), 1.0)}, "RDMs 'evc' of subj02: the diagonal must be zero"),
        ({"fmri_evc": rdms(2), "fmri_it": rdms(2)[:, :5, :5]}, "different numbers of images: {'evc': 6, 'it': 5}"),
        ({"fmri_evc": rdms(2), "images": np.zeros((7, 2, 2, 3), np.uint8)}, "has 7 images, but the RDMs are over 6"),
        ({"fmri_evc": rdms(2), "images": np.zeros((6, 2, 2, 3))}, r"\'images\': uint8 \(image, height, width, 3\) is needed"),
        ({"fmri_evc": rdms(2), "category": np.array(["face"])}, "stimuli.labels: 1 rows for 6"),
        ({"fmri_evc": rdms(2), "subjects": np.array(["a"])}, "'subjects' has 1 names"),
        ({"fmri_evc": rdms(2), "EVC_RDMs": rdms(2)}, "two arrays stand for the same RDMs"),
        ({"fmri_evc": rdms(2), "model_rdms": rdms(2), "model_names": np.array(["a"])}, "with one 'model_names' each"),
        ({"pixels": rdms(), "other": spoil((0, 2, 3), 9.0)[0]}, "model RDM 'other': not symmetric"),
        ({"pixels": rdms()}, "no RDMs of subjects: .* models: pixels"),
        ({"weights": np.zeros((3, 4))}, r"no RDMs: .* there are weights \(3, 4\)"),
    ],
)
def test_bad_files_are_refused_with_the_place(write, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_npz(write(**arrays))


def test_a_subject_without_variance_is_named(write) -> None:
    with pytest.raises(DegenerateError, match=r"rdms.npz: RDMs 'evc' of subj02: all pairs"):
        read_npz(write(fmri_evc=np.stack([rdms(), np.ones((6, 6)) - np.eye(6)])))


def test_files_that_cannot_be_read(write, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds Python objects"):
        read_npz(write(fmri_evc=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(FileError, match="no such file"):
        read_npz(tmp_path / "none.npz")
    (tmp_path / "target_fmri.mat").write_bytes(b"MATLAB 7.3")
    with pytest.raises(FileError, match=r"from \.npz, not from '\.mat'"):
        read_npz(tmp_path / "target_fmri.mat")


def test_models_alone_are_parts(write) -> None:
    found = read_npz_arrays(write(pixels=rdms()))
    assert (found.n_images, found.targets, list(found.models), found.names) == (6, {}, ["pixels"], None)


def test_the_92_images(shared_data: Path) -> None:
    found = read_npz(shared_data / "rdm92_algonauts" / "rdm92_algonauts2019.npz")
    assert {name: target.rdms.shape for name, target in found.targets.items()} == {"evc": (15, 92, 92), "it": (15, 92, 92)}
    assert (found.stimuli.ids[0], found.stimuli.ids[-1]) == ("image_01", "image_92")
    assert found.stimuli.labels is not None
    assert found.stimuli.image(91).shape == (175, 175, 3)
    other = read_npz(shared_data / "rdm92_kriegeskorte" / "rdm92_kriegeskorte2008_dev.npz")
    assert other.target("hit_session1").subjects == ("BE", "KO", "SN", "TI")
    assert other.target("behaviour").subjects[15] == "subj16"
    assert len(other.models) == 9


def test_an_empty_diagonal_is_no_missing_pair() -> None:
    stack = rdms(2).astype(np.float64)
    stack[:, np.arange(6), np.arange(6)] = np.nan
    target = SubjectRDMs(name="it", rdms=stack)
    assert target.n_missing_pairs == 0
    assert np.array_equal(target.rdms, rdms(2))


def test_an_rdm_without_any_pair_is_refused() -> None:
    with pytest.raises(InputError, match=r"RDMs 'it' of subj02: every pair is missing"):
        SubjectRDMs(name="it", rdms=np.stack([rdms(), np.full((N_IMAGES, N_IMAGES), np.nan)]))


def test_similarities_are_told_by_their_signs():
    """Oracle: correlations and 1 - correlations of the same patterns, clustered and not, as ranks, and of noise alone."""
    from pulvinar.data.dissimilarities import look_like_similarities

    for seed in range(20):
        generator = np.random.default_rng(seed)
        for patterns in (
            generator.normal(size=(20, 50)),
            np.repeat(generator.normal(size=(4, 50)), 5, 0) + generator.normal(size=(20, 50)),
        ):
            r = np.corrcoef(patterns)
            similar, different = r * (1 - np.eye(20)), (1 - r) * (1 - np.eye(20))
            assert look_like_similarities(similar[None])
            assert not look_like_similarities(different[None])
            assert not look_like_similarities(
                different.argsort(axis=None).argsort().reshape(1, 20, 20) * 1.0 * (1 - np.eye(20))
            )
            gap = different.copy()
            gap[3, 5] = gap[5, 3] = np.nan
            assert not look_like_similarities(np.stack([gap, different]))
