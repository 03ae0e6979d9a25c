"""Conversion of an experiment, interrupted and taken up again. Oracle: the source's own arrays; reads are counted."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pulvinar.core import memory
from pulvinar.core.errors import ConfigError, FileError, InputError, LeakError
from pulvinar.data.conversion import convert
from pulvinar.data.experiment import Experiment, load, save, verify
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues, trial_places
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli

N_TRIALS, N_VOXELS, SESSIONS = 10, 8, (1, 2, 4)
IDS = [f"image{row:02d}" for row in range(15)]


class Source:
    """Sessions in memory that count how often they are read, and fail when told to."""

    def __init__(self) -> None:
        shape = (max(SESSIONS) + 1, N_TRIALS, N_VOXELS)
        self.values = np.random.default_rng(0).integers(-999, 999, shape).astype(np.int16)
        self.reads: list[int] = []
        self.broken = 0

    def read(self, session: int) -> np.ndarray:
        if session == self.broken:
            raise KeyboardInterrupt
        self.reads.append(session)
        return self.values[session]


def lazy(source: Source, limit: int = 0) -> SessionValues:
    places = trial_places(SESSIONS, N_TRIALS)
    cache = SessionCache(limit)
    return SessionValues("s", source.read, places, n_voxels=N_VOXELS, dtype=np.int16, cache=cache, trials_per_session=N_TRIALS)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def experiment(source) -> Experiment:
    responses = Responses(
        subject="s",
        values=lazy(source),
        scale=0.25,
        stimulus_ids=IDS * 2,
        sessions=np.repeat(SESSIONS, N_TRIALS),
        geometry=Geometry.from_points(np.arange(N_VOXELS)[:, None]),
        rois=ROIs({"front": np.arange(N_VOXELS) < 3}, n_voxels=N_VOXELS),
    )
    pixels = np.random.default_rng(1).integers(0, 255, (len(IDS), 6, 5, 3), dtype=np.uint8)
    features = {"clip": np.random.default_rng(2).normal(size=(len(IDS), 4)).astype(np.float32)}
    stimuli = Stimuli(ids=IDS, sources=IDS, read_image=pixels.__getitem__, features=features, pixel_keys=IDS)
    return Experiment(
        name="e", stimuli=stimuli, subjects={"s": responses}, split=Split(train=tuple(IDS[:9]), test=tuple(IDS[9:])), target="s"
    )


def whole(source: Source) -> np.ndarray:
    return np.concatenate([source.values[session] for session in SESSIONS])


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(8, 23),
        7,
        np.array([29, 0, 11, 11]),
        (np.array([3, 20]), np.array([5, 1])),
        (slice(None), slice(2, 4)),
    ],
)
def test_lazy_values_index_like_the_array(source, key):
    expected = whole(source)
    expected = expected[key[0]][:, key[1]] if isinstance(key, tuple) else expected[key]
    np.testing.assert_array_equal(lazy(source)[key], expected)
    np.testing.assert_array_equal(np.asarray(lazy(source)), whole(source))


def test_lazy_values_know_their_trial_numbers(source):
    assert lazy(source).trial_numbers.tolist() == [*range(20), *range(30, 40)]


def test_memory_holds_as_many_sessions_as_fit_and_drops_the_oldest(source):
    values = lazy(source, limit=2 * N_TRIALS * N_VOXELS * 2)
    for trial in (0, 10, 0, 20, 0, 10):
        values[[trial]]
    assert source.reads == [1, 2, 4, 2]


def test_a_session_of_another_size_is_refused(source):
    source.values = source.values[:, :, :5]
    with pytest.raises(InputError, match=r"session 1: \(trial, 8\) int16 expected, \(10, 5\)"):
        lazy(source)[[0]]


def test_the_folder_holds_what_the_source_holds(experiment, source, tmp_path):
    converted = load(convert(experiment, tmp_path / "out"))
    np.testing.assert_array_equal(converted.subjects["s"].values, whole(source))
    assert source.reads == list(SESSIONS)  # each session once
    assert verify(tmp_path / "out") == []
    assert not (tmp_path / "out.unfinished").exists()
    saved = load(save(experiment, tmp_path / "saved"))
    for name in ("scale", "stimulus_ids"):
        assert getattr(converted.subjects["s"], name) == getattr(saved.subjects["s"], name)
    assert (converted.stimuli.image(3) == experiment.stimuli.image(3)).all()
    assert converted.fingerprint() == experiment.fingerprint()


def streamed(source: Source, n_rows: int = N_TRIALS) -> SessionValues:
    def stream(session: int):
        source.reads.append(session)
        yield from (source.values[session][start : min(start + 3, n_rows)] for start in range(0, n_rows, 3))

    values = lazy(source)
    return SessionValues(
        "s", source.read, values._places, n_voxels=N_VOXELS, dtype=np.int16, cache=SessionCache(0), stream=stream
    )


def test_sessions_that_come_some_trials_at_a_time_give_the_same_folder(experiment, source, tmp_path):
    convert(experiment, tmp_path / "whole")
    source.reads = []
    subjects = {"s": dataclasses.replace(experiment.subjects["s"], values=streamed(source))}
    convert(dataclasses.replace(experiment, subjects=subjects), tmp_path / "streamed")
    assert source.reads == list(SESSIONS)  # each once
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert all((tmp_path / "whole" / path).read_bytes() == (tmp_path / "streamed" / path).read_bytes() for path in files)


def test_a_stream_of_another_length_is_refused(experiment, source, tmp_path):
    subjects = {"s": dataclasses.replace(experiment.subjects["s"], values=streamed(source, n_rows=7))}
    with pytest.raises(InputError, match="session 1 of s: 10 trials expected, 7 or more are there"):
        convert(dataclasses.replace(experiment, subjects=subjects), tmp_path / "out")


def test_within_little_memory_fewer_sessions_are_kept(source, monkeypatch):
    values = lazy(source, limit=10**9)
    monkeypatch.setattr(memory, "resident", lambda: 10**9)
    with memory.using("2GB"):
        values[[0]], values[[10]], values[[0]]
        assert source.reads == [1, 2]  # there is room for both
        monkeypatch.setattr(memory, "room", lambda usual, held: 2 * N_TRIALS * N_VOXELS * 2)
        values[[20]], values[[0]], values[[10]]
        assert source.reads == [1, 2, 4, 2]  # session 2 was used longest ago when 4 came
        monkeypatch.setattr(memory, "resident", lambda: 2 * 10**9 - memory.MARGIN)
        with pytest.raises(ConfigError, match="memory=2GB: session 4 of s, and what is taken of it, needs"):
            values[[20]]


def test_an_interrupted_conversion_goes_on_where_it_was(experiment, source, tmp_path):
    source.broken = 4
    with pytest.raises(KeyboardInterrupt):
        convert(experiment, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    source.broken, source.reads = 0, []
    convert(experiment, tmp_path / "out")
    assert source.reads == [4]
    np.testing.assert_array_equal(load(tmp_path / "out").subjects["s"].values, whole(source))


def test_a_block_damaged_in_between_is_written_again(experiment, source, tmp_path):
    source.broken = 4
    with pytest.raises(KeyboardInterrupt):
        convert(experiment, tmp_path / "out")
    path = tmp_path / "out.unfinished" / "responses" / "s.h5"
    content = path.read_bytes()
    second = source.values[2].tobytes()
    assert content.count(second) == 1
    path.write_bytes(content.replace(second, bytes(len(second))))
    source.broken, source.reads = 0, []
    convert(experiment, tmp_path / "out")
    assert source.reads == [2, 4]
    np.testing.assert_array_equal(load(tmp_path / "out").subjects["s"].values, whole(source))


def test_an_image_cut_short_in_between_is_written_again(experiment, source, tmp_path):
    source.broken = 4
    with pytest.raises(KeyboardInterrupt):
        convert(experiment, tmp_path / "out")
    images = tmp_path / "out.unfinished" / "images"
    images.mkdir()
    (images / "image03.png").write_bytes(b"\x89PNG cut")
    source.broken = 0
    assert (load(convert(experiment, tmp_path / "out")).stimuli.image(3) == experiment.stimuli.image(3)).all()


def test_an_unfinished_conversion_of_something_else_is_left_alone(experiment, source, tmp_path):
    source.broken = 4
    with pytest.raises(KeyboardInterrupt):
        convert(experiment, tmp_path / "out")
    other = dataclasses.replace(experiment, name="another")
    before = (tmp_path / "out.unfinished" / "progress.json").read_text()
    with pytest.raises(FileError, match="unfinished conversion of another experiment"):
        convert(other, tmp_path / "out")
    assert (tmp_path / "out.unfinished" / "progress.json").read_text() == before
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileError, match="exists already"):
        convert(experiment, tmp_path / "taken")


def test_pixels_are_compared_on_the_way_whatever_the_keys_say(experiment, tmp_path):
    pixels = [experiment.stimuli.image(row) for row in range(len(IDS))]
    pixels[12] = pixels[2]
    stimuli = dataclasses.replace(experiment.stimuli, read_image=pixels.__getitem__)
    with pytest.raises(LeakError, match=r"'image02' .training. and 'image12' .test."):
        convert(dataclasses.replace(experiment, stimuli=stimuli), tmp_path / "out")


def test_keys_are_kept_in_the_folder_until_an_image_changes(experiment, tmp_path, monkeypatch):
    folder = convert(experiment, tmp_path / "out")
    assert load(folder).stimuli.pixel_keys is not None
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 255, (9, 9, 3), dtype=np.uint8))
    picture.save(folder / "images" / "image02.png")
    assert load(folder).stimuli.pixel_keys is None
    shutil.copy(folder / "images" / "image02.png", folder / "images" / "image12.png")
    with pytest.raises(LeakError, match="share their pixels"):
        load(folder)
    assert "image02" in json.loads((folder / "split.json").read_text())["train"]
