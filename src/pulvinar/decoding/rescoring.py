"""The scores of a decoding run made again from the predictions that it keeps; nothing is trained."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pulvinar.core.errors import FileError
from pulvinar.core.storage import read_arrays
from pulvinar.data.experiment import Experiment
from pulvinar.decoding import evaluation
from pulvinar.decoding.controls import Control
from pulvinar.decoding.data import half_of
from pulvinar.decoding.decoder_checkpoint import stored_decoder
from pulvinar.decoding.settings import AdaptationSettings
from pulvinar.learning.runs import RunFolder


def rescored_decoding(
    run: RunFolder, experiment: Experiment, config: AdaptationSettings, reported: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for each of a reported evaluation that has predictions. `FileError` where they are of other images."""
    asked = {"near_duplicate": reported["near_duplicate_cosine"], "protocol": reported["protocol"], "roi": reported["roi"]}
    config, stored = dataclasses.replace(config, **asked), stored_decoder(run)
    experiment = half_of(experiment, config.half)
    test = evaluation.test_images(experiment, stored.embedding, config)
    reference, _ = evaluation.reference_of(experiment, config.roi)
    controls: list[Control] = []
    scored: dict[str, Any] = {}
    for row in reported["rows"]:
        if row.get("brain_to_image_top1") is None:
            continue
        path = run.path / "predictions" / f"{row['name']}.npz"
        kept = read_arrays(path)
        if list(kept["stimulus"]) != test.images:
            raise FileError(f"{path}: predictions of other images than the test images of the data")
        controls.append(Control(name=row["name"], description="", selected=kept["selected"], oracle=bool(row.get("oracle"))))
        scored[row["name"]] = {name: evaluation.score(kept["predicted"], test, config.seed, name) for name in test.protocols}
    ours = scored[run.method]
    return [
        evaluation.row_of(control, scored[control.name], reference, ours, run.method, config.seed, config.protocol)
        for control in controls
    ]
