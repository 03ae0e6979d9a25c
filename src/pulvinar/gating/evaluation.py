"""The evaluation of a self-supervised run: scores, controls, budget, written into its folder.

What the usual scoring gives on the run's own images is the run's evaluation (evaluation.json, predictions/). Any other, on
other images or scored another way, has the same files in a folder of its own, RUN/evaluations/NAME.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pulvinar.core import devices
from pulvinar.core.progress import log
from pulvinar.core.sampling import blocks_of
from pulvinar.core.storage import read_json, write_arrays, write_json
from pulvinar.data.image_set import ImageSet
from pulvinar.gating import backbone_scores
from pulvinar.gating.backbone_scores import BackboneScores, score_backbone
from pulvinar.gating.settings import ScoreSettings, SelfSupervisedConfig
from pulvinar.gating.siamese import load_encoders
from pulvinar.learning.backbone_runs import load_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import as_pixels, resized_crop
from pulvinar.networks.gated_resnet import GatedResNet

ELSEWHERE = "evaluations"  # folder of a run: evaluations on other images, or scored another way


def evaluate_run(
    run: RunFolder,
    data: ImageSet,
    config: SelfSupervisedConfig,
    *,
    controls: bool = True,
    scoring: ScoreSettings | None = None,
    first_row: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """`score_backbone` of the run's network with the run's budget beside it; written as the module says.

    Other images than the network's size are resized to it. With two encoders the gated one is scored with the controls, and
    the dense one's scores stand beside. first_row: what to say of the first row instead (its MAC share, its description).
    """
    scoring = scoring or ScoreSettings()
    fitted = fitted_to(load_backbone(run).network.size, data)
    encoders = [encoder.to(devices.current()) for encoder in load_encoders(run, config, fitted.size[0])]

    def score(encoder: GatedResNet, *, controls: bool) -> BackboneScores:
        return score_backbone(encoder, fitted, views=config.views()[0], settings=scoring, seed=config.seed, controls=controls)

    scores = score(encoders[0], controls=controls)
    result = scores.values
    for dense in encoders[1:]:
        other = score(dense, controls=False)
        result |= {key: value for key, value in other.values.items() if key in ("knn_dense", "linear_dense")}
        result["rows"].insert(1, other.values["rows"][0])
        scores.correct.update(other.correct)
        scores.features.update(other.features)
    result["rows"][0] |= {"name": run.method, "pass": result["rows"][0]["name"], **(first_row or {})}
    result["mac_share"] = result["rows"][0]["mac_share"]
    result["budget"] = run.facts.get("budget")
    return keep(run, data, scores, scoring)


def fitted_to(size: int, data: ImageSet) -> ImageSet:
    """The images at the size of a network, in pixels along an edge: for features learnt on one set and scored on another.

    Table 2 of dual gating; the paper does not say at which size it transfers: this one, so that the multiply-adds compare.
    """
    if data.size == (size, size):
        return data
    log(f"{data.name}: images of {data.size[0]} x {data.size[1]} pixels, resized to the network's {size} x {size}")
    return replace(data, train=resized(data.train, size), test=resized(data.test, size))


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Images as uint8 (image, size, size, 3): antialiased bicubic of the central square. Themselves where they fit."""
    height, width = images.shape[1:3]
    if (height, width) == (size, size):
        return images
    side = min(height, width)
    crop = torch.tensor([[(height - side) // 2, (width - side) // 2, side, side]])
    made = np.empty((len(images), size, size, 3), np.uint8)
    for part in blocks_of(len(images), 512):
        pixels = as_pixels(torch.from_numpy(np.ascontiguousarray(images[part])))
        values = resized_crop(pixels, crop.expand(len(pixels), 4), size, "bicubic")
        made[part] = (values.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return made


def keep(
    run: RunFolder, data: ImageSet, scores: BackboneScores, scoring: ScoreSettings, usual: ScoreSettings | None = None
) -> dict[str, Any]:
    """Write an evaluation where it belongs; its values. usual: how runs of this method are scored unless said otherwise."""
    changed = scoring.changed(usual or ScoreSettings())
    is_own = data.fingerprint() == run.facts["data"]["fingerprint"]
    place = run.path if is_own and not changed else run.path / ELSEWHERE / _name(data, changed)
    if _n_rows(place) > len(scores.values["rows"]):  # a full evaluation is not replaced by one without controls
        changed |= {"controls": False}
        place = run.path / ELSEWHERE / _name(data, changed)
    result = {
        **scores.values,
        "images": data.name,
        "own_images": is_own,
        "class_names": list(data.class_names),
        "changed": changed,
        "place": str(place),
    }
    write_arrays(place / "predictions" / "correct.npz", **scores.correct)
    write_arrays(place / "predictions" / "features.npz", **scores.features)
    write_json(place / "evaluation.json", result, sealed=True)
    return result


def _n_rows(place: Path) -> int:
    """Rows of the evaluation that is kept there; 0 without one."""
    path = place / "evaluation.json"
    return len(read_json(path)["rows"]) if path.is_file() else 0


def _name(data: ImageSet, changed: dict[str, Any]) -> str:
    words = [data.name, *(f"{name}={value}" for name, value in changed.items())]
    return re.sub(r"[^\w.,=-]+", "_", ",".join(words)).lstrip(".") or "images"


def as_text(evaluation: dict[str, Any]) -> str:
    """The table of `backbone_scores`, the budget asked and met, and where it was written if not as the run's own evaluation."""
    text = backbone_scores.as_text(evaluation)
    budget = evaluation.get("budget")
    if budget is not None:
        text += (
            f"\nMAC share asked {budget['asked']:.3f}, on test images {evaluation['mac_share']:.4f} "
            f"(logits shifted by {budget['logit_shift']:+.3f} after training)"
        )
    if not evaluation["own_images"] or evaluation["changed"]:
        scored = ", ".join(f"{name}={value}" for name, value in evaluation["changed"].items())
        text += f"\n{evaluation['images']}{': ' + scored if scored else ''}; kept in {evaluation['place']}"
    return text
