"""From numpy arrays to a new subject's voxels: an experiment, a decoder over two subjects, TROI on the third, a score.

The arrays here are made up, so that the answer is known: 50 of 200 voxels follow the images' embedding. Epochs are few, so
that this runs in seconds; leave `epochs` and `epochs_per_round` out for real data.
"""

import tempfile
from pathlib import Path

import numpy as np

from pulvinar.app.evaluate import evaluate
from pulvinar.app.fit import fit
from pulvinar.data.experiment import save
from pulvinar.datasets.arrays import from_arrays

N_IMAGES, N_VOXELS, N_RESPONSIVE, DIM = 160, 200, 50, 12


def made_up_arrays() -> dict:
    """Responses (trial, voxel), stimulus ids, coordinates (voxel, 3) in mm, ROIs per subject; and the images' embedding."""
    generator = np.random.default_rng(0)
    embedding = generator.normal(size=(N_IMAGES, DIM))
    ids = [f"image-{number:03d}" for number in range(N_IMAGES)]
    place = 3.0 * np.argwhere(np.ones((5, 5, 8)))  # a block of voxels, 3 mm apart
    responsive = place[:, 2] < 6.0  # the two lowest layers
    responses = {}
    for subject in ("sub-01", "sub-02", "sub-03"):
        tuning = generator.normal(size=(DIM, N_VOXELS)) * responsive
        responses[subject] = embedding @ tuning + 5.0 * generator.normal(size=(N_IMAGES, N_VOXELS))
    return {
        "responses": responses,
        "stimulus_ids": dict.fromkeys(responses, ids),
        "geometry": dict.fromkeys(responses, place),
        "rois": {subject: {"annotated": responsive} for subject in responses},
        "stimuli": ids,
        "features": {"embedding": embedding},
    }


def main(folder: Path) -> dict:
    """Save the experiment, fit both methods, score; what `pulvinar evaluate --json` would print."""
    experiment = from_arrays(name="made up", target="sub-03", **made_up_arrays())
    save(experiment, folder / "experiment")
    data = str(folder / "experiment")
    decoder, run = str(folder / "decoder"), str(folder / "troi")
    fit("cross_subject_decoder", data=data, out=decoder, assignments=["epochs=12", "hidden=64"])
    settings = ["epochs=12", "n_rounds=3", "epochs_per_round=6", f"n_voxels={N_RESPONSIVE}"]
    fit("troi", data=data, out=run, pretrained=decoder, assignments=settings)
    return evaluate(run)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        result = main(Path(temporary))
    print(f"top-1 of {result['gallery_size']:.0f} test images, chance {result['chance']:.3f}")
    for row in result["rows"]:
        if not row.get("unavailable"):
            print(f"{row['name']:22} {row['n_voxels']:4} voxels  {row['brain_to_image_top1']:.2f}")
