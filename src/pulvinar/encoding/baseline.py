"""What features are to beat: ridge on low-level features of the pixels, on category labels, or on both."""

from collections.abc import Sequence

import numpy as np
import torch

from pulvinar.core import devices
from pulvinar.core.sampling import blocks_of
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.encoder import Layers, concatenated, total_spread
from pulvinar.encoding.settings import Baseline
from pulvinar.networks.fixed_networks import colour, in_batches, oriented_energy

LARGEST_SIDE = 128  # pixels of an image in which energy and colour are measured (ours)
IMAGES_PER_BATCH = 64


def low_level_features(stimuli: Stimuli, rows: np.ndarray) -> np.ndarray:
    """Oriented energy and colour on a 4 x 4 grid (`models.fixed_networks`), float32 (image, dim); reads the images."""
    size = min(LARGEST_SIDE, *stimuli.image(int(rows[0])).shape[:2])
    parts = []
    for batch in blocks_of(len(rows), IMAGES_PER_BATCH):
        pixels = [_resized(stimuli.image(int(row)), size) for row in rows[batch]]
        images = torch.from_numpy(np.stack(pixels)).to(devices.current())
        parts.append(torch.cat([in_batches(oriented_energy, images), in_batches(colour, images)], dim=1).cpu().numpy())
    return np.concatenate(parts)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def category_features(stimuli: Stimuli, rows: np.ndarray) -> np.ndarray:
    """One column per label (all stimuli's labels), 1 where the image has it: float32 (image, label)."""
    names, given = sorted(set(stimuli.labels or ())), stimuli.labels or ()
    labels = np.array([given[int(row)] for row in rows])
    return (labels[:, None] == np.array(names)).astype(np.float32)


def missing_reason(baseline: Baseline, stimuli: Stimuli) -> str:
    """Why this baseline cannot be had of these stimuli; nothing where it can."""
    if baseline == "none":
        return "baseline=none"
    available = {"low_level": stimuli.read_image is not None, "category": stimuli.labels is not None}
    lacking = [name for name in _names(baseline) if not available[name]]
    needs = {"low_level": "images", "category": "labels"}
    return f"the {lacking[0]} baseline needs {needs[lacking[0]]}, and these stimuli came without" if lacking else ""


def _names(baseline: Baseline) -> tuple[str, ...]:
    return ("low_level", "category") if baseline == "both" else (baseline,)


def baseline_features(baseline: Baseline, stimuli: Stimuli, ids: Sequence[str]) -> list[np.ndarray]:
    """The baseline's blocks of features for these images."""
    make = {"low_level": low_level_features, "category": category_features}
    return [make[name](stimuli, stimuli.rows(ids)) for name in _names(baseline)]


def side_by_side(blocks: Sequence[np.ndarray], scaled_by: Sequence[np.ndarray]) -> np.ndarray:
    """Blocks of features side by side, each divided by the total spread of a block of the training images."""
    named = {str(number): block for number, block in enumerate(blocks)}
    return concatenated(named, scales=[total_spread(block) for block in scaled_by])


def with_baseline(layers: Layers, blocks: Sequence[np.ndarray], training: Layers, own: Sequence[np.ndarray]) -> Layers:
    """Each layer with the baseline's blocks beside it, at equal spread on the training images."""
    return {name: side_by_side([values, *blocks], [training[name], *own]) for name, values in layers.items()}
