"""The decoder of a finished run, ready for the run's subject, and what it gives for trials and test images."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core import devices
from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.data.experiment import Experiment
from pulvinar.data.responses import mean_over_repeats
from pulvinar.data.scaling import Mode
from pulvinar.decoding.data import Embedding, Trials, held_out_data, training_data, usable_voxels
from pulvinar.decoding.decoder_checkpoint import has_layer, stored_decoder
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end, seeded
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import SharedDecoder, input_layer


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedDecoder:
    """A subject's decoder: input layer on the selected voxels (voxel,) bool, the shared part, the embedding."""

    shared: SharedDecoder
    layer: nn.Linear
    selected: np.ndarray
    embedding: Embedding
    scaling: Mode
    n_sessions: int | None

    def training(self, experiment: Experiment) -> Trials:
        """Training trials of the target on the selected voxels."""
        options = {"scaling": self.scaling, "voxels": self.selected, "n_sessions": self.n_sessions}
        return training_data(experiment, experiment.target, self.embedding, **options)  # type: ignore[arg-type]

    def test(self, experiment: Experiment) -> Trials:
        """Trials of the test images on the selected voxels."""
        options = {"scaling": self.scaling, "n_sessions": self.n_sessions}
        trials = held_out_data(experiment, experiment.target, self.embedding, **options)  # type: ignore[arg-type]
        voxels = torch.from_numpy(np.flatnonzero(self.selected))
        return Trials(
            responses=trials.responses[:, voxels].contiguous(), target=trials.target, stimulus_ids=trials.stimulus_ids
        )

    @torch.no_grad()
    def output(self, responses: Tensor) -> Tensor:
        """b (row, dim) of z-scored responses, on the device: the condition of a prior."""
        return self.shared(self.layer(responses.to(self.layer.weight.device))).output

    @torch.no_grad()
    def outputs(self, responses: Tensor) -> dict[str, Tensor]:
        """Output, projected (unit length) and regressed (or sampled by a prior) embedding (row, dim), on the CPU."""
        decoded = self.shared(self.layer(responses.to(self.layer.weight.device)))
        unit = nn.functional.normalize(decoded.projected, dim=1)
        regressed = self.shared.reconstructed(decoded).cpu()
        return {"output": decoded.output.cpu(), "projected": unit.cpu(), "regressed": regressed}


def averaged(values: Tensor, stimulus_ids: tuple[str, ...]) -> Tensor:
    """Outputs of the trials of each stimulus averaged, in order of first appearance, on the CPU."""
    return torch.from_numpy(mean_over_repeats(values.cpu().numpy(), stimulus_ids)[0])


def require_decoder_run(run: RunFolder) -> RunFolder:
    """The run, if it is a finished one whose decoder can be used; `InputError` otherwise."""
    if not has_layer(run) and run.method != "cross_subject_decoder":
        raise InputError(
            f"{run.path}: pictures are made from a run of troi, a selector or cross_subject_decoder; this is one of "
            f"{run.method}"
        )
    return run.require(method=run.method)


def open_decoder(run: RunFolder, experiment: Experiment, *, adapted: State | None = None) -> OpenedDecoder:
    """The decoder of a finished run for the experiment's target.

    A cross_subject_decoder run has no layer for the target: `adapted` is one that `adapt` made.
    """
    stored, settings = stored_decoder(require_decoder_run(run)), run.settings()
    shared, embedding = stored.shared, stored.embedding
    embedding.of(experiment, experiment.split.train[:1])
    embedding.require_same_network(experiment)
    place = adapted if run.method == "cross_subject_decoder" else stored.state
    if place is None:
        place = adapt(shared, embedding, run, experiment)
    selected = place["selected"].numpy().astype(bool)
    if len(selected) != experiment.subjects[experiment.target].n_voxels:
        raise InputError(
            f"{run.path}: its decoder is for {len(selected)} voxels, {experiment.target} has "
            f"{experiment.subjects[experiment.target].n_voxels}"
        )
    layer = nn.Linear(int(selected.sum()), shared.hidden)
    layer.load_state_dict(place["layer"])
    sessions = settings.get("n_sessions")
    return OpenedDecoder(
        shared=shared.eval().requires_grad_(False).to(devices.current()),
        layer=layer.requires_grad_(False).to(devices.current()),
        selected=selected,
        embedding=embedding,
        scaling=settings["scaling"],
        n_sessions=sessions if isinstance(sessions, int) else None,
    )


def adapt(shared: SharedDecoder, embedding: Embedding, run: RunFolder, experiment: Experiment) -> State:
    """An input layer for the target on a pretrained decoder, which stays as it is: the run's own settings, the target's ROI.

    Where the target has no ROI of the run's name, all its usable voxels. Returns `selected` (voxel,) and `layer`.
    """
    settings = run.settings()
    responses, sessions = experiment.subjects[experiment.target], settings.get("n_sessions")
    n_sessions = sessions if isinstance(sessions, int) else None
    usable = usable_voxels(experiment, experiment.target, n_sessions=n_sessions, drop_bad_voxels=settings["drop_bad_voxels"])
    selected = np.isin(np.arange(responses.n_voxels), usable)
    if settings["roi"] in responses.rois:
        selected &= responses.rois[settings["roi"]]
    log(f"{run.path}: no layer for {experiment.target}; one is fitted on {int(selected.sum())} voxels")
    trials = training_data(
        experiment, experiment.target, embedding, scaling=settings["scaling"], voxels=selected, n_sessions=n_sessions
    )
    generator = seeded(int(settings["seed"]), 5, n_streams=16)
    layer = input_layer(int(selected.sum()), shared.hidden, generator, scale=settings["input_scale"])
    given = {name: None if value == "none" else value for name, value in settings.items()}
    known: dict[str, Any] = {field.name: given[field.name] for field in fields(DecodingSettings) if field.name in given}
    data = [(trials.responses, trials.target)]
    trainer = DecoderTrainer(shared, [layer], data, DecodingSettings(**known), generator, train_shared=False)
    run_to_end(trainer, "input layer of the new subject")
    return {"selected": torch.from_numpy(selected), "layer": dict(layer.state_dict())}
