"""`pulvinar data embed`: embeddings of an experiment's images by a vision tower, in a file that fits read."""

from typing import Any

from pulvinar.app.data import open_experiment
from pulvinar.core.storage import refuse_existing
from pulvinar.encoding.embedding_files import write_embedding
from pulvinar.networks.vision_towers import load_tower


def embed(
    source: str, *, network: str, out: str, weights: str | None = None, tokens: bool = False, batch_size: int = 32
) -> dict[str, Any]:
    """Write the embeddings; the facts beside them, and the setting that decodes them."""
    refuse_existing(out)
    experiment = open_experiment(source)
    tower = load_tower(network, weights=weights)
    facts = write_embedding(tower, experiment.stimuli, out, tokens=tokens, batch_size=batch_size)
    return {"out": out, "setting": f"feature={out}", **facts}
