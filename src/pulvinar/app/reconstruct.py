"""`pulvinar reconstruct`: pictures of what a subject saw, from a finished decoding run, beside what was seen and retrieved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.app.fit import create_run, fit_from, prepare, require_same_data
from pulvinar.app.stored_runs import uses_run
from pulvinar.core import devices
from pulvinar.core.config import build, parse_assignments, read_toml, suggest
from pulvinar.core.errors import ConfigError, FileError, InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.core.storage import fingerprint, read_json, write_bytes, write_json, write_text
from pulvinar.data.experiment import Experiment, image_path
from pulvinar.data.image_files import ImageFiles, open_images, read_image
from pulvinar.data.pictures import PictureOptions
from pulvinar.decoding.decoder_runs import require_decoder_run
from pulvinar.decoding.pictures import picture_grid, reconstruction
from pulvinar.decoding.pictures.picture_generators import open_generator, parse
from pulvinar.decoding.pictures.picture_parts import (
    Decoded,
    OpenedPictures,
    as_uint8,
    blended,
    decoder_run_of,
    open_parts,
    resized,
)
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.table import csv_text

METHOD = "picture_decoder"
DEFAULT_COUNT = 24
N_RETRIEVED = 3
N_STEPS, GUIDANCE = 20, 7.5  # of a large generator, where nothing is said


@uses_run
def reconstruct(
    run: str,
    *,
    images: str = str(DEFAULT_COUNT),
    out: str | None = None,
    generator: str = "embedded",
    data: str | None = None,
    measures: Sequence[str] = (),
    weights: str | None = None,
    n_steps: int | None = None,
    guidance: float | None = None,
    controls: bool = True,
    config_file: str | None = None,
    assignments: Sequence[str] = (),
) -> dict[str, Any]:
    """Reconstruct test images, write pictures, grid, scores and summary into `out`; what is there already is not made again.

    run: of troi, cross_subject_decoder or picture_decoder. For the first two the parts that make pictures are trained first,
    in OUT/picture_decoder. images: a count, 'all', stimulus ids or numbers with commas between, or a folder of pictures: files
    named as test stimuli choose these, others are what is retrieved from.
    """
    kind, place = parse(generator)
    idle = [f"{name} {value}" for name, value in (("--steps", n_steps), ("--guidance", guidance)) if value is not None]
    if kind == "embedded" and idle:
        raise ConfigError(f"{', '.join(idle)} does nothing here: it counts with a large --generator (unclip:PLACE, ...) only")
    n_steps, guidance = N_STEPS if n_steps is None else n_steps, GUIDANCE if guidance is None else guidance
    source = RunFolder.reopen(run)
    of_pictures = source.method == METHOD
    decoder = decoder_run_of(source.require(method=METHOD)) if of_pictures else require_decoder_run(source)
    experiment = _experiment(decoder, data)
    folder = (
        Path(out) if out is not None else Path(run) / ("reconstructions" if kind == "embedded" else f"reconstructions_{kind}")
    )
    if of_pictures and (config_file or assignments):
        raise ConfigError(f"{run} is trained already; --config and --set are for runs that are not")
    pick = choose(experiment, images)
    given = (read_toml(config_file) if config_file else {}) | parse_assignments(assignments)
    device = str(given.get("device", source.settings().get("device", "auto")))
    with devices.using(device):
        measured, skipped = reconstruction.open_measures(measures, weights)
        make = None if kind == "embedded" else open_generator(kind, str(place), n_steps=n_steps, guidance=guidance)
    trained = source if of_pictures else _trained(folder, source, experiment, config_file, assignments, data)
    with devices.using(device):
        opened = open_parts(trained, experiment)
    seed = int(trained.facts["seed"])
    if make is not None and make.dim != len(opened.decoder.embedding.mean):
        raise InputError(
            f"--generator {generator}: its weights take embeddings of {make.dim} numbers, the run decodes "
            f"'{opened.decoder.embedding.name}' of {len(opened.decoder.embedding.mean)}; decode the embedding they want"
        )
    decoded = opened.decode(experiment, seed=seed)
    rows = np.array([decoded.ids.index(name) for name in pick.ids])
    settings = {
        "run": fingerprint(read_json(trained.path / "run.json")["data"], trained.settings(), seed),
        "images": pick.ids,
        "generator": {"kind": kind, "place": place, "steps": n_steps, "guidance": guidance} if make else {"kind": kind},
        "blend": opened.blend,
    }
    _require_same_settings(folder, settings)
    generated = _generated(opened, decoded, rows, make, folder, seed)
    low_level = None if decoded.low_level is None else decoded.low_level[torch.from_numpy(rows)]
    final = as_uint8(blended(generated, low_level, opened.blend))
    for name, pixels in zip(pick.ids, final, strict=True):
        _write_png(image_path(folder, name), pixels)
    judge = reconstruction.Judge(reconstruction.images_of(experiment, pick.ids, "reading seen images"), measured, seed=seed)
    ours = reconstruction.Candidate(name="reconstruction", description=_described(kind, opened), pictures=final)
    rows_of_table = reconstruction.candidates(experiment, opened, decoded, rows, ours, generated, controls=controls, seed=seed)
    scores, scored = reconstruction.table(judge, rows_of_table, seed=seed)
    summary = {**reconstruction.summary(judge, scores, skipped, opened), "settings": settings, "seed": seed}
    shown = _retrieved(experiment, opened, decoded, rows, final, pick)
    write_text(folder / "scores.csv", _scores_csv(pick.ids, decoded, rows, scored["reconstruction"], shown))
    write_json(folder / "summary.json", summary, sealed=True)
    grid = picture_grid.write(
        folder,
        picture_grid.Grid(
            ids=pick.ids,
            seen=judge.seen,
            reconstructed=final,
            retrieved=shown["pictures"],
            retrieved_from=shown["from"],
            right=shown["right"],
            scores=scored["reconstruction"].per_image,
        ),
        summary,
        simulated=experiment.simulated,
    )
    with RunFolder.reopen(run).logged(()) as logs:
        if logs is not None:
            logs.pictures()
    return {"run": run, "out": str(folder), "grid": str(grid), "images": str(folder / "images"), **summary}


class ChosenImages:
    """Which test images are reconstructed (ids), and pictures of the user's own to retrieve from, if any.

    gallery: name -> file; options: how these files are read.
    """

    def __init__(self, ids: list[str], gallery: dict[str, Path] | None = None, options: PictureOptions | None = None) -> None:
        self.ids, self.gallery, self.options = ids, gallery, options


def choose(experiment: Experiment, images: str) -> ChosenImages:
    """The test images that `images` asks for, see `reconstruct`; a count takes them evenly over the test images."""
    responses = experiment.subjects[experiment.target]
    test = set(experiment.split.test)
    shown = list(dict.fromkeys(name for name in responses.stimulus_ids if name in test))
    order = [name for name in experiment.split.test if name in set(shown)]
    if len(order) < 2:
        raise InputError(
            f"responses of {experiment.target} show {len(order)} test images; two or more are needed to tell pictures apart"
        )
    if images == "all":
        return ChosenImages(order)
    if Path(images.partition("?")[0]).is_dir():
        names, paths, options = open_images(images)
        files = dict(sorted(zip(names.ids, paths, strict=True)))
        named = [name for name in order if names.has(name)]
        if named and len(named) < 2:
            raise InputError(f"--images {images}: one file is named as a test stimulus; two or more are needed")
        return ChosenImages(named) if named else ChosenImages(_evenly(order, DEFAULT_COUNT), files, options)
    parts = [part.strip() for part in images.split(",") if part.strip()]
    if len(parts) == 1 and parts[0].isdecimal() and parts[0] not in order:
        count = int(parts[0])
        if not 2 <= count <= len(order):
            raise InputError(f"--images {count}: 2 to {len(order)} test images can be shown")
        return ChosenImages(_evenly(order, count))
    chosen = list(dict.fromkeys(_one(part, order) for part in parts))
    if len(chosen) < 2:
        raise InputError(f"--images {images}: two test images or more, a count, 'all' or a folder of pictures is needed")
    return ChosenImages(chosen)


def _evenly(order: list[str], count: int) -> list[str]:
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [order[place] for place in places]


def _one(part: str, order: list[str]) -> str:
    """A stimulus by its id, or by its number among the test images (from 0)."""
    if part in order:
        return part
    if part.isdecimal():
        if int(part) >= len(order):
            raise InputError(f"--images: number {part}; the test images are 0 to {len(order) - 1}")
        return order[int(part)]
    raise NotFoundError(f"--images: '{part}' is no test stimulus of this run and no folder{suggest(part, order)}"[:300])


def _experiment(decoder: RunFolder, data: str | None) -> Experiment:
    source = decoder.facts["data"]
    place = data or source["path"]
    if data is None and ":" not in place and not Path(place).exists():
        raise FileError(f"{place}: the data of {decoder.path} are not there any more; say where they are with --data")
    opened = open_data("experiment", place, target=source["target"])
    if not isinstance(opened, Experiment):
        raise InputError(f"{place}: an experiment is needed")
    require_same_data(decoder, opened)
    return opened.without_truth()


def _trained(
    folder: Path,
    decoder: RunFolder,
    experiment: Experiment,
    config_file: str | None,
    assignments: Sequence[str],
    data: str | None,
) -> RunFolder:
    """The run of picture_decoder inside `folder`, finished: opened, continued or made."""
    method = registry.method(METHOD)
    given: dict[str, Any] = dict(read_toml(config_file)) if config_file else {}
    given |= parse_assignments(assignments)
    config = build(
        method.config,
        {"seed": decoder.facts["seed"], "device": decoder.settings().get("device", "auto"), **given},
        name=METHOD,
        given=given,
    )
    path, plan = folder / METHOD, {"path": str(decoder.path.resolve())}
    if path.exists():
        run = RunFolder.reopen(path)
        recorded = build(method.config, run.settings(), name=METHOD)
        changed = [name for name, value in vars(config).items() if value != getattr(recorded, name)]
        if changed and (config_file or assignments):
            raise ConfigError(f"{path}: was begun with other settings ({', '.join(changed)}); give another --out")
        config = recorded
        if run.finished:
            return run
        with run.held():
            run.remove_leftovers()
            run.use_recorded_threads()
            log(f"{path}: continued")
            fit_from(method, config, prepare(method, config, experiment, plan, path)[0], run, decoder.path)
        return RunFolder.reopen(path)
    prepared = prepare(method, config, experiment, plan, path)
    run = create_run(path, method, config, experiment, plan)
    with run.held():
        fit_from(method, config, prepared[0], run, decoder.path)
    return RunFolder.reopen(path)


def _require_same_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Pictures that were made otherwise are not mixed with new ones."""
    path = folder / "settings.json"
    if path.is_file():
        stored = read_json(path)
        changed = [name for name in settings if stored.get(name) != settings[name] and name != "images"]
        if changed:
            raise ConfigError(f"{folder}: holds pictures made with another {', '.join(changed)}; give another --out")
    write_json(path, settings)


def _generated(opened: OpenedPictures, decoded: Decoded, rows: np.ndarray, make: Any, folder: Path, seed: int) -> Tensor:
    """Pictures of the embeddings before the blend; those of a large generator are kept, one file each, and not made twice."""
    embedding = decoded.embedding[torch.from_numpy(rows)]
    if make is None:
        return opened.embedded_pictures(embedding)
    own = embedding * opened.decoder.embedding.spread + torch.tensor(opened.decoder.embedding.mean)
    made = []
    for row, values in track(list(zip(rows, own, strict=True)), "generating pictures", len(rows)):
        path = folder / "generated" / image_path(folder, decoded.ids[row]).name
        if not path.is_file():
            _write_png(path, as_uint8(make(values, seed + int(row))[None])[0])
        made.append(_unit_range(read_image(path)))
    return torch.stack(made)


def _described(kind: str, opened: OpenedPictures) -> str:
    prior = "regression head" if opened.parts.prior is None else "diffusion prior"
    blend = f", {opened.blend:.0%} low-level" if opened.parts.low_level is not None and opened.blend else ""
    return f"{kind} generator, {prior}{blend}"


def _retrieved(
    experiment: Experiment, opened: OpenedPictures, decoded: Decoded, rows: np.ndarray, final: np.ndarray, pick: ChosenImages
) -> dict[str, Any]:
    """The best matches of each brain: from all test images by the embedding, or from the user's folder by the picture."""
    if pick.gallery is not None:
        files = list(pick.gallery.values())
        read, side = ImageFiles(files, pick.options), opened.parts.components.side
        numbers = track(range(len(files)), "reading the folder", len(files))
        pixels = np.stack([as_uint8(resized(_unit_range(read(row))[None], side))[0] for row in numbers])
        ours = as_uint8(resized(torch.from_numpy(final).permute(0, 3, 1, 2).float() / 255, side))
        best = _by_pixels(ours, pixels)
        names = [[files[place].stem for place in places] for places in best]
        pictures = np.stack([[reconstruction.at_full_size(pixels[[place]])[0] for place in places] for places in best])
        return {"names": names, "pictures": pictures, "from": f"{len(files)} pictures of your folder, by pixels", "right": None}
    best = reconstruction.gallery_match(decoded.projected[torch.from_numpy(rows)], decoded.true, n_matches=N_RETRIEVED)
    names = [[decoded.ids[place] for place in places] for places in best]
    flat = reconstruction.images_of(experiment, [name for row in names for name in row], "reading retrieved images")
    right = np.array([[place == row for place in places] for places, row in zip(best, rows, strict=True)])
    pictures = flat.reshape(len(names), -1, *flat.shape[1:])
    return {"names": names, "pictures": pictures, "from": f"{len(decoded.ids)} test images, by embedding", "right": right}


def _unit_range(pixels: np.ndarray) -> Tensor:
    """(3, height, width) in [0, 1] of uint8 (height, width, 3)."""
    return torch.tensor(pixels).permute(2, 0, 1).float() / 255  # a copy: pixels of a file may not be written to


def _by_pixels(ours: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The pictures of the gallery that correlate best with ours over pixels: (image, match), best first."""
    flat = [values.reshape(len(values), -1).astype(np.float64) for values in (ours, gallery)]
    unit = [values - values.mean(1, keepdims=True) for values in flat]
    unit = [values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9) for values in unit]
    return np.argsort(-(unit[0] @ unit[1].T), axis=1, kind="stable")[:, :N_RETRIEVED]


def _scores_csv(
    ids: list[str], decoded: Decoded, rows: np.ndarray, scored: reconstruction.Scored, shown: dict[str, Any]
) -> str:
    """One line an image: presentations averaged, every metric, what was retrieved."""
    entries = []
    for place, name in enumerate(ids):
        scores = {metric: f"{values[place]:.6f}" for metric, values in scored.per_image.items()}
        retrieved = {f"retrieved_{number}": match for number, match in enumerate(shown["names"][place], start=1)}
        entries.append({"stimulus": name, "n_trials": int(decoded.n_trials[rows[place]]), **scores, **retrieved})
    return csv_text(entries)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())
