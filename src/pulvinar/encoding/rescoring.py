"""The scores of an encoding run made again from the predictions that it keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pulvinar.encoding.files import read_predictions, read_voxel_maps, region_masks
from pulvinar.encoding.scores import Predictions, region_row, score_voxels
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.encoding import Ceiling

OF_CONTROLS = ("r_optimistic", "r_baseline", "unique_variance", "share_improved")  # their predictions are not kept


def rescored_encoding(run: RunFolder, reported: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each reported one, without what needs the controls' predictions."""
    settings, rows = run.settings(), []
    n_permutations, seed = int(settings["n_permutations"]), int(settings["seed"])
    for subject in dict.fromkeys(str(row["subject"]) for row in reported):
        kept, maps = read_predictions(run, subject), read_voxel_maps(run, subject)
        given = Predictions(
            predicted=kept["predicted"],
            measured=kept["measured"],
            ceiling=Ceiling(r2=maps.get("ceiling")),
            untuned=kept.get("untuned"),
            tuned=kept.get("tuned"),
        )
        generator = np.random.default_rng([seed, 0x9E2])
        by_voxel = score_voxels(given, generator=generator, n_permutations=n_permutations)
        for (roi, hemisphere), inside in region_masks(maps).items():
            row = region_row(given, by_voxel, inside, seed=seed, n_permutations=n_permutations)
            left_out = OF_CONTROLS if given.untuned is None else OF_CONTROLS[:-1]
            numbers = {key: value for key, value in row.items() if key not in left_out}
            rows.append({"name": run.method, "subject": subject, "roi": roi, "hemisphere": hemisphere, **numbers})
    return rows
