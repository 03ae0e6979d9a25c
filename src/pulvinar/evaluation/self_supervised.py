"""The evaluation of a self-supervised run: scores, controls, budget, written into its folder."""

from typing import Any

import numpy as np

from pulvinar.data.image_set import ImageSet
from pulvinar.errors import InputError
from pulvinar.evaluation import backbone_scores
from pulvinar.evaluation.backbone_scores import score_backbone
from pulvinar.models.gated_resnet import GatedResNet
from pulvinar.storage import write_arrays, write_json
from pulvinar.training.runs import RunFolder
from pulvinar.training.self_supervised_run import image_size, load_encoders
from pulvinar.training.self_supervised_settings import SelfSupervisedConfig
from pulvinar.training.siamese import Branches


def evaluate_run(
    run: RunFolder, data: ImageSet, config: SelfSupervisedConfig, branches: Branches, *, controls: bool
) -> dict[str, Any]:
    """`score_backbone` of the run's network with the run's budget beside it; also evaluation.json and which images were right.

    With two encoders the gated one is scored with the controls, and the dense one's scores stand beside.
    """
    size = image_size(data)
    encoders = load_encoders(run, config, branches, size)
    if "network" in run.facts and encoders[0].macs.dense != run.facts["network"]["macs"]:
        raise InputError(f"{data.name}: images of {size} pixels; the network of {run.path} was trained on another size")
    result, arrays = _score(encoders[0], data, config, controls=controls)
    for dense in encoders[1:]:
        other, more = _score(dense, data, config, controls=False)
        result |= {key: value for key, value in other.items() if key in ("knn_dense", "linear_dense")}
        result["rows"].insert(1, other["rows"][0])
        arrays |= more
    result["rows"][0] |= {"name": run.method, "pass": result["rows"][0]["name"]}
    result["budget"] = run.facts.get("budget")
    write_arrays(run.path / "predictions" / "correct.npz", **arrays)
    write_json(run.path / "evaluation.json", result)
    return result


def _score(
    encoder: GatedResNet, data: ImageSet, config: SelfSupervisedConfig, *, controls: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return score_backbone(encoder, data, views=config.views()[0], seed=config.seed, controls=controls)


def as_text(evaluation: dict[str, Any]) -> str:
    """The table of `backbone_scores` and the budget asked and met."""
    text = backbone_scores.as_text(evaluation)
    budget = evaluation.get("budget")
    if budget is None:
        return text
    return (
        f"{text}\nMAC share asked {budget['asked']:.3f}, on test images {evaluation['mac_share']:.4f} "
        f"(logits shifted by {budget['logit_shift']:+.3f} after training)"
    )
