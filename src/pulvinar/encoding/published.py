"""Published rows to stand beside encoding models: Mulrooney & Brockmeier 2024, recomputed from the authors' result files."""

from typing import Any

RELEASED = {  # mean Pearson r over early and over higher ROIs
    "untuned": (0.386, 0.355),
    "regression-tuned": (0.409, 0.365),
    "contrastive": (0.417, 0.368),
    "pooled": (0.428, 0.368),
}


def released_results(*names: str) -> list[dict[str, Any]]:
    """A row for each of these models and group of ROIs, as `PUBLISHED` of a method wants them."""
    return [
        {
            "table": "released results",
            "setting": "recomputed from the authors' result files: 8 subjects, AlexNet, mean over ROIs",
            "method": f"Mulrooney & Brockmeier 2024, {name}, {rois} ROIs",
            "metric": "r_nested",
            "value": value,
            "unit": "r",
        }
        for name in names
        for rois, value in zip(("early", "higher"), RELEASED[name], strict=True)
    ]
