"""A finished decoder in its run folder: the checkpoint `decoder`, with what is needed to build the shared part again.

So that one method can read another's run (an adaptation its pretrained decoder, a reconstruction its embeddings).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pulvinar.core.errors import FileError, InputError, LeakError
from pulvinar.data.experiment import Experiment
from pulvinar.decoding.data import Embedding, Probes, refuse_copied_responses
from pulvinar.learning.checkpoints import State
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, SharedDecoder
from pulvinar.selection import selectors

CHECKPOINT, VERSION = "decoder", 2


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredDecoder:
    """The shared part, the embedding it decodes, and the whole checkpoint with what its method added."""

    shared: SharedDecoder
    embedding: Embedding
    state: State

    def embedding_for(self, experiment: Experiment, feature: str | None) -> Embedding:
        """The embedding to decode in this experiment; feature: None, or the name that was asked for.

        Raises `LeakError` if the decoder has seen the target or test images, `InputError` if the embedding is another one.
        """
        known, embedding = [name for name in self.state["subjects"] if name in experiment.subjects], self.embedding
        if experiment.target in known:
            raise LeakError(f"the pretrained decoder was trained on {experiment.target}, the new subject; pretrain without it")
        refuse_copied_responses(experiment, known)
        seen = sorted(set(self.state["trained_on"]) & set(experiment.split.test))
        if seen:
            raise LeakError(f"the pretrained decoder was trained on {len(seen)} of the test images, among them {seen[:3]}")
        if feature not in (None, embedding.name):
            raise InputError(f"feature: the pretrained decoder decodes '{embedding.name}', not '{feature}'")
        embedding.of(experiment, experiment.split.test[:1])
        embedding.require_same_network(experiment)
        return embedding


def has_layer(run: RunFolder) -> bool:
    """Whether a run's decoder has an input layer on voxels that were selected: a run of troi, or of a selector."""
    return run.method == "troi" or run.method in selectors.files()


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
    state = run.read(CHECKPOINT)
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
