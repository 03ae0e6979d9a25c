"""The README of a backbone that leaves the house, written from its run: what it is, what it scores, how it was made."""

from collections.abc import Mapping
from typing import Any

from pulvinar.core.errors import PulvinarError
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.plain_resnet import PlainResNet
from pulvinar.networks.resnet_shape import is_standard
from pulvinar.report import findings, run_folder
from pulvinar.report.page import topic_page, without_places

USE = """```python
import pulvinar

model = pulvinar.load_backbone("hf-hub:OWNER/NAME").eval()  # or a folder
features = model.from_pixels(pixels)  # uint8, or floating in [0, 1]; model(x) takes normalised images
```"""
TIMM = '`timm.create_model("hf-hub:OWNER/NAME", pretrained=True)` loads it too.'
WORDS = {
    "dense": "every channel is computed for every image",
    "gated": "channels are chosen by image; all are computed and closed ones multiplied by zero, so it saves no time as it is",
    "compact": "channels that the calibration images leave shut are cut out; an image that would open one gets other features",
}


def model_card(run: RunFolder, network: PlainResNet, facts: Mapping[str, Any]) -> str:
    """Markdown with the header that the Hugging Face hub reads. Paths of this machine are left out."""
    read = run_folder.read(run.path)
    name = f"{network.shape.network}, {network.mode} pass of a run of {run.method}"
    head = ["---", "library_name: pulvinar", "pipeline_tag: image-feature-extraction", "tags: [pulvinar, resnet]", "---", ""]
    size = f"{network.num_features} features of images of {network.size} pixels a side, {network.macs.dense:,} multiply-adds"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (network.mean, network.std))
    parts = [
        *head,
        f"# {name}",
        f"{size[0].upper()}{size[1:]} with every channel; {WORDS[network.mode]}.",
        "## Use",
        USE + (f"\n\n{TIMM}" if network.mode == "dense" and is_standard(network.shape) else ""),
        f"Normalisation: (pixel / 255 - mean) / std with mean {mean}, std {std}.",
        "## What it scores",
        _scores(read),
        "## How it was made",
        f"Data: {facts.get('data') or 'not recorded'}. Seed {run.facts.get('seed')}. {_calibration(facts)}Settings:",
        f"```toml\n{(read.config or '').strip()}\n```",
        "Written from the run by pulvinar. The licence of the weights is for their owner to say.",
    ]
    return without_places("\n\n".join(part for part in ["\n".join(parts[:6]), *parts[6:]] if part)) + "\n"


def _scores(read: run_folder.Run) -> str:
    if read.evaluation is None:
        return "The run was not evaluated."
    found = findings.headline(read)
    about = [f"{found.lead}. {found.rest}", *(f"- Caution: {text}" for text in findings.cautions(read))]
    try:
        records = topic_page(read).records(read)
    except (PulvinarError, KeyError):
        records = []
    columns = [key for key in ("name", "mac_share", "linear", "knn") if any(row.get(key) is not None for row in records)]
    if not columns:
        return "\n".join(about)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in records:
        cells = [row.get(key) for key in columns]
        lines.append(f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in cells)} |")
    return "\n".join(about) + "\n\n" + "\n".join(lines)


def _calibration(facts: Mapping[str, Any]) -> str:
    calibration = facts.get("calibration")
    return f"{calibration['statement']}. " if calibration else ""
