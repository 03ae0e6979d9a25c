"""A finished decoder in its run folder: the checkpoint `decoder`, with what is needed to build the shared part again.

So that one method can read another's run (an adaptation its pretrained decoder, a reconstruction its embeddings).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pulvinar.errors import FileError, InputError
from pulvinar.models.decoder import DecoderShape, SharedDecoder
from pulvinar.training.checkpoints import State
from pulvinar.training.decoding_data import Embedding, Probes
from pulvinar.training.runs import RunFolder

CHECKPOINT, VERSION = "decoder", 2


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredDecoder:
    """The shared part, the embedding it decodes, and the whole checkpoint with what its method added."""

    shared: SharedDecoder
    embedding: Embedding
    state: State


def decoder_state(shared: SharedDecoder, embedding: Embedding) -> State:
    """What a checkpoint holds of a decoder, for `stored_decoder`; methods add their own entries."""
    probes = embedding.probes
    return {
        "version": VERSION,
        "shared": dict(shared.state_dict()),
        "architecture": asdict(shared.shape),
        "embedding": {
            "name": embedding.name,
            "mean": torch.from_numpy(np.asarray(embedding.mean)),
            "spread": embedding.spread,
            "n_tokens": embedding.n_tokens,
            "probes": None
            if probes is None
            else {"stimulus_ids": list(probes.stimulus_ids), "values": torch.from_numpy(probes.values)},
        },
    }


def stored_decoder(run: RunFolder) -> StoredDecoder:
    """The decoder of a run; `InputError` if it has none or one of another version, `FileError` if it is damaged."""
    records = run.records
    state = run.load(name=CHECKPOINT)
    run.records = records
    place = f"{run.path}/checkpoints/{CHECKPOINT}.safetensors"
    if state is None:
        raise InputError(f"{run.path}: has no decoder checkpoint")
    if state.get("version") != VERSION:
        raise InputError(
            f"{place}: a decoder of version {state.get('version', 1)}, version {VERSION} is needed; fit it again with "
            f"`pulvinar fit {run.method}`, or use the pulvinar that {run.path}/environment.json names"
        )
    try:
        shared = SharedDecoder(DecoderShape(**state["architecture"]))
        shared.load_state_dict(state["shared"])
        embedding = _embedding(state["embedding"])
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise FileError(f"{place}: not a decoder of this version: {error}") from error
    return StoredDecoder(shared=shared, embedding=embedding, state=state)


def _embedding(stored: dict[str, Any]) -> Embedding:
    probes = stored["probes"]
    known = None if probes is None else Probes(tuple(probes["stimulus_ids"]), probes["values"].numpy())
    return Embedding(stored["name"], stored["mean"].numpy(), stored["spread"], stored["n_tokens"], known)
