"""Scores of a tuned encoding model: the rows of `encoding_run` with the same ridge on the untuned backbone beside them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pulvinar.core.storage import write_json
from pulvinar.data.experiment import Experiment
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding import evaluation as scoring
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.encoder import predict as predict_responses
from pulvinar.encoding.fit import load_encoder
from pulvinar.encoding.settings import names_of, open_named
from pulvinar.encoding.tuned_backbones import load_tuned
from pulvinar.encoding.tuned_choice import TUNED, UNTUNED
from pulvinar.encoding.tuning_run import choice_folds, layers_of, mac_share, pixels
from pulvinar.encoding.tuning_settings import TuningConfig, tag_of
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.gated_backbone import ResNetPass
from pulvinar.scores.resampling import interval_text


def evaluate(run: RunFolder, experiment: Experiment, config: TuningConfig, *, controls: bool = True) -> dict[str, Any]:
    """Rows per subject, ROI and hemisphere on the outer test images; written into the run with maps and predictions."""
    run.require(method=config.METHOD)
    rows, ceilings = [], {}
    shares, choices = {}, {}
    for name in names_of(config, experiment):
        given, encoder = open_named(config, experiment, name), load_encoder(run, name)
        tag, fell_back = encoder["backbone"], encoder["backbone"] == UNTUNED
        shown, test_ids = [*given.train.ids, *given.test.ids], given.test.ids
        features = layers_of(config, run, tag, given.stimuli, shown)
        test_layers = features.of(test_ids)
        encoded = scoring.Encoded(
            given=given,
            encoder=encoder,
            layers=features.of(given.train.ids),
            test_layers=test_layers,
            folds=None if fell_back else choice_folds(config, experiment, given),
            untuned=predict_responses(encoder, test_layers) if fell_back else _predict(config, run, given, UNTUNED, UNTUNED),
            tuned=_predict(config, run, given, tag_of(config, name), TUNED) if fell_back else None,
        )
        found, ceilings[name] = scoring.score_subject(config, run, encoded, controls=controls)
        shares[name] = _mac_share(run, tag, given.stimuli, test_ids)
        own = {
            "tuned_on": run.facts["tuned_on"][name],
            "mac_share": shares[name],
            "encoded_with": UNTUNED if fell_back else TUNED,
        }
        rows += [{**row, **own} for row in found]
        choices[name] = {"encoded_with": own["encoded_with"], **(encoder.get("choice") or {})}
    result = scoring.describe(config, rows, ceilings) | {
        "backbone": config.backbone,
        "tuned": config.tuned,
        "voxels": config.voxels,
        "pooled": config.pooled,
        "choices": choices,
        "choices_are": "R^2 of the ridge on the tuned and on the untuned backbone on n_images training images held out from "
        "tuning; the untuned one encodes unless the tuned one is better by 0.002",
        **{f"{column.key}_is": column.definition for column in scoring.OF_TUNED if column.definition},
    }
    write_json(run.path / "evaluation.json", result, sealed=True)
    return result


def _predict(config: TuningConfig, run: RunFolder, given: EncodedSubject, tag: str, encoder: str) -> np.ndarray:
    """Test predictions of an encoder of the run (its checkpoint's name) on the layers of a backbone."""
    layers = layers_of(config, run, tag, given.stimuli, given.test.ids).of(given.test.ids)
    return predict_responses(load_encoder(run, given.name, name=encoder), layers)


def _mac_share(run: RunFolder, tag: str, stimuli: Stimuli, ids: list[str]) -> float | None:
    """Mean MAC share of a gated backbone on these images; None without gates."""
    backbone = load_tuned(run, tag)
    if not isinstance(backbone.network, ResNetPass) or not backbone.network.gated:
        return None
    return mac_share(backbone.network, pixels(backbone, stimuli, stimuli.rows(ids)), len(ids))


def predict(run: RunFolder, stimuli: Stimuli, config: TuningConfig) -> dict[str, np.ndarray]:
    """Predicted z-scored responses of each subject to new images: subject -> float32 (image, encoded voxel)."""
    found = {}
    for name in run.facts["subjects"]:
        encoder = load_encoder(run, name)
        layers = layers_of(config, run, encoder["backbone"], stimuli, list(stimuli.ids)).of(list(stimuli.ids))
        found[name] = predict_responses(encoder, layers)
    return found


def as_text(evaluation: Mapping[str, Any]) -> str:
    """The table that `pulvinar evaluate` prints."""
    first = evaluation["rows"][0]
    lines = [scoring.as_text(evaluation), f"r, untuned: {evaluation['r_untuned_is']}", *warnings_of(evaluation)]
    if first.get("share_improved") is not None and first["encoded_with"] == TUNED:
        lines.append(
            f"first row [95 % interval over images]: difference {first['difference']:+.3f} {_between(first, 'difference')}, "
            f"p {first['difference_p_value']:.3f}; share improved {first['share_improved']:.3f} "
            f"{_between(first, 'share_improved', '{:.3f}')}, "
            f"chance {first['share_improved_chance']:.3f}, its 95th percentile {first['share_improved_chance_95']:.3f}"
        )
    if first.get("mac_share") is not None:
        lines.append(f"multiply-adds: {first['mac_share']:.3f} of the dense network on the test images")
    return "\n".join(lines)


def _between(row: Mapping[str, Any], key: str, form: str = "{:+.3f}") -> str:
    """The interval of a value of a row."""
    return interval_text((row[f"{key}_low"], row[f"{key}_high"]), form.format)


def warnings_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Where the untuned backbone encodes, and where the tuned one is worse than the untuned (interval below 0)."""
    lines = []
    for name, choice in evaluation["choices"].items():
        if choice["encoded_with"] != UNTUNED:
            continue
        tuned = next(row for row in evaluation["rows"] if row["subject"] == name).get("r_tuned")
        score = "" if tuned is None else f", r on the test images {tuned:.3f}"
        lines.append(
            f"{name}: tuning did not help, the untuned backbone encodes: R^2 on {choice['n_images']} training images held out "
            f"from tuning {choice[UNTUNED]:.4f}, tuned {choice[TUNED]:.4f}{score}; fall_back=false encodes with the tuned one"
        )
    worse = [row for row in evaluation["rows"] if row.get("share_improved") is not None and row["difference_high"] < 0]
    lines += [
        f"{row['subject']}, {row['roi']} ({row['hemisphere']}): worse than the untuned backbone, {row['r_nested']:.3f} against "
        f"{row['r_untuned']:.3f} (difference {row['difference']:+.3f} {_between(row, 'difference')}, 95 %)"
        for row in worse
    ]
    return lines
