"""Several sets of images, each with RDMs of its own subjects, as one: pairs across sets are of no subject."""

from collections.abc import Sequence

import numpy as np
import torch

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.data.background import on_grey
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs
from pulvinar.data.stimuli import Stimuli

SIDE = 16  # pixels of the small pictures that are compared
SAME_PICTURE = 0.98  # correlation of two small pictures, both on grey, above which they show the same (ours)


def join(sets: Sequence[Dissimilarities]) -> Dissimilarities:
    """All images of two sets or more, and every target of any of them; `parts` are the sets.

    A target's subjects are those of all sets that have it, named SET/SUBJECT, with NaN for every pair that is not of their own
    set. Images of two sets that show the same picture (on grey, 16 x 16 pixels, r above 0.98) share a source, so that no fold
    has them on both sides. Raises `InputError` for fewer than two sets, and time points that differ between sets.
    """
    if len(sets) < 2:
        raise InputError(f"sets of images: two or more are needed, {len(sets)} came")
    labels = set_labels([part.name for part in sets])
    ends = np.cumsum([len(part.stimuli) for part in sets])
    starts = ends - [len(part.stimuli) for part in sets]
    targets = dict.fromkeys(name for part in sets for name in part.targets)
    return Dissimilarities(
        name=" + ".join(labels),
        stimuli=_stimuli(sets, labels, starts),
        targets={name: _target(name, sets, labels, starts, int(ends[-1])) for name in targets},
        simulated=any(part.simulated for part in sets),
        on_trust={
            f"{label}: {name}": how for label, part in zip(labels, sets, strict=True) for name, how in part.on_trust.items()
        },
        parts=tuple(sets),
    )


def set_labels(names: Sequence[str]) -> list[str]:
    """The names, with a number where several sets have one.

    >>> set_labels(["a", "b", "a"])
    ['a-1', 'b', 'a-2']
    """
    return [
        f"{name}-{list(names[: place + 1]).count(name)}" if list(names).count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _target(name: str, sets: Sequence[Dissimilarities], labels: Sequence[str], starts: np.ndarray, n: int) -> SubjectRDMs:
    found = [
        (part.targets[name], label, start)
        for part, label, start in zip(sets, labels, starts, strict=True)
        if name in part.targets
    ]
    first = found[0][0]
    for target, label, _ in found[1:]:
        if target.rdms.shape[1:-2] != first.rdms.shape[1:-2]:
            counts = [one.rdms.shape[1] if one.rdms.ndim == 4 else "no" for one in (first, target)]
            raise InputError(
                f"RDMs '{name}': {counts[0]} time points in {found[0][1]}, {counts[1]} in {label}; as many are needed"
            )
    blocks = []
    for target, _, start in found:
        block = np.full((*target.rdms.shape[:-2], n, n), np.nan)
        block[..., np.arange(n), np.arange(n)] = 0.0
        block[..., start : start + target.n_images, start : start + target.n_images] = target.rdms
        blocks.append(block)
    subjects = [f"{label}/{subject}" for target, label, _ in found for subject in target.subjects]
    return SubjectRDMs(name=name, rdms=np.concatenate(blocks), subjects=subjects, times=first.times)


def _stimuli(sets: Sequence[Dissimilarities], labels: Sequence[str], starts: np.ndarray) -> Stimuli:
    place = [(number, row) for number, part in enumerate(sets) for row in range(len(part.stimuli))]
    sources = [f"{labels[number]}/{sets[number].stimuli.sources[row]}" for number, row in place]
    readable = all(part.stimuli.read_image is not None for part in sets)
    categories = [part.stimuli.labels for part in sets]

    def read(row: int) -> np.ndarray:
        number, own = place[row]
        return sets[number].stimuli.image(own)

    return Stimuli(
        ids=[f"{labels[number]}/{sets[number].stimuli.ids[row]}" for number, row in place],
        sources=_shared_sources(sources, [part.stimuli for part in sets], starts) if readable else sources,
        labels=[str(name) for part in categories for name in part or ()]
        if all(part is not None for part in categories)
        else None,
        read_image=read if readable else None,
    )


def _shared_sources(sources: Sequence[str], sets: Sequence[Stimuli], starts: np.ndarray) -> list[str]:
    """The sources, with one name for pictures that stand in several sets."""
    small = [_small_pictures(stimuli) for stimuli in sets]
    made = list(sources)
    for later in range(1, len(sets)):
        for earlier in range(later):
            for row, other in np.argwhere(small[later] @ small[earlier].T > SAME_PICTURE):
                old, new = made[starts[later] + row], made[starts[earlier] + other]
                made = [new if name == old else name for name in made]
    n_shared = len(set(sources)) - len(set(made))
    if n_shared:
        log(f"{n_shared} pictures stand in more than one set: folds keep them on one side")
    return made


def _small_pictures(stimuli: Stimuli) -> np.ndarray:
    """(image, number) small pictures on grey, less their mean, of length 1; a picture of one colour is zeros."""
    pictures = [torch.from_numpy(on_grey(stimuli.image(row)).astype(np.float32)) for row in range(len(stimuli))]
    small = [torch.nn.functional.adaptive_avg_pool2d(image.permute(2, 0, 1), SIDE).flatten() for image in pictures]
    values = torch.stack(small)
    values = values - values.mean(1, keepdim=True)
    return (values / values.norm(dim=1, keepdim=True).clamp_min(1e-6)).numpy()
