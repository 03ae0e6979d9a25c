"""A tuned encoding model, from settings and an experiment to a finished run: network, tuning, then ridge on its layers.

Checkpoints of the run: network-untuned, network-TAG and head-TAG of each tuned network (a subject's name, or 'pooled');
untuned-SUBJECT, encoder-SUBJECT: the ridge on the layers before and after tuning. Where tuning did not help
(`fit.choice_unit`), encoder-SUBJECT is the one before, and tuned-SUBJECT the one after.

Outer test images are nowhere in it: responses are read for `split.train` alone, for every subject (`require_apart`). Part of
the training images (`validation_share`, whole source pictures, the same for all subjects) is held out from tuning; on it the
epoch is chosen, and the folds that choose layer and alpha hold out these images alone, because features of images that a
network was tuned on fit their responses better than those of new ones. The ridge on the untuned network chooses by folds over
all training images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pulvinar.core import devices
from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.data.experiment import Experiment
from pulvinar.data.splits import folds_by_source, require_apart
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.encoder import Folds
from pulvinar.encoding.feature_cache import cached_features
from pulvinar.encoding.fit import UNTUNED, Unit, choice_unit, encoder_unit, run_units
from pulvinar.encoding.layer_features import LayerFeatures, NetworkSource
from pulvinar.encoding.response_tuning import ResponseTuner, TunedPart, TunedSubject
from pulvinar.encoding.settings import (
    EncodingConfig,
    TunedWeights,
    TuningConfig,
    names_of,
    networks_of,
    open_checked,
    open_named,
    tag_of,
)
from pulvinar.encoding.tuned_networks import calibrate_embedded, load_tuned, network_state, open_network, output_stage
from pulvinar.encoding.tuned_voxels import VoxelChoice, chosen_voxels
from pulvinar.gating.settling import shift_onto
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end
from pulvinar.learning.processes import first_alone, require_rows
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.low_rank import add_adapters, merge
from pulvinar.networks.network_cut import named_parameters_of, require_same, rest_after
from pulvinar.networks.staged import StagedNetwork
from pulvinar.networks.staged_resnet import ResNetPass
from pulvinar.selection.budget import BudgetConstraint

IMAGES_PER_PASS = 64
N_BUDGET_IMAGES = 1000
RATE, STEPS_OF_RATE, STIFFNESS = 0.1, 1000, 50.0  # of the budget's constraint, as in gated training
BUDGET_TOLERANCE = 2e-3

OpenSubject = Callable[[EncodingConfig, Experiment, str], EncodedSubject]


@dataclass(frozen=True, eq=False)
class Plan:
    """Training images of all subjects of a network (ids, their stimulus rows), and which of them are held out from tuning."""

    stimuli: Stimuli
    ids: list[str]
    rows: np.ndarray
    held_out: frozenset[str]

    def tuned_rows(self, given: EncodedSubject) -> np.ndarray:
        """Places (in given.train.ids) of the images that the subject is tuned on."""
        return np.array([place for place, name in enumerate(given.train.ids) if name not in self.held_out], dtype=np.int64)

    def held_out_rows(self, given: EncodedSubject) -> np.ndarray:
        """Places of the others."""
        return np.array([place for place, name in enumerate(given.train.ids) if name in self.held_out], dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """Every subject that is encoded or tuned on, and of each network (tag) which images of its subjects it is tuned on."""

    subjects: dict[str, EncodedSubject]
    plans: dict[str, Plan]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What a run is tuned and fitted on: the experiment, its subjects, the network before it is tuned."""

    experiment: Experiment
    opened: Opened
    network: StagedNetwork


def open_all(config: TuningConfig, experiment: Experiment, open_encoded: OpenSubject = open_named) -> Opened:
    """Every subject once. open_encoded: how those are opened that are encoded."""
    subjects = {name: open_encoded(config, experiment, name) for name in names_of(config, experiment)}
    networks = networks_of(config, experiment)
    for name in dict.fromkeys(name for members in networks.values() for name in members if name not in subjects):
        subjects[name] = open_named(config, experiment, name)
    plans = {
        tag: _plan(config, experiment, [subjects[name] for name in members]) for tag, members in networks.items()
    }  # fmt: skip
    return Opened(subjects=subjects, plans=plans)


def prepare(config: TuningConfig, experiment: Experiment) -> Prepared:
    """What can be wrong with settings and data together, before anything is written; what `fit` works on."""
    if experiment.stimuli.read_image is None:
        raise InputError("images: tuning needs the images themselves, and these stimuli came without; see ridge_encoding")
    opened = open_all(config, experiment, open_checked)
    for tag, members in networks_of(config, experiment).items():
        for given in (opened.subjects[name] for name in members):
            own = opened.plans[tag].tuned_rows(given)
            if len(own) < 2:
                raise InputError(f"responses of {given.name}: {len(own)} training images to tune on; 2 or more are needed")
            require_rows(min(config.batch_size, len(own)), equally=True)
    network = open_network(
        config.network,
        weights=config.weights,
        stages=config.stages if config.stages is not None else config.n_stages,
        image_size=config.image_size,
        seed=config.seed,
    ).to(devices.current())
    weights = TunedWeights.parse(config.tuned)
    _refuse_misfit(config, network, weights)
    if weights.kind in ("last", "after"):
        rest_after(network.module, _cut_at(network, weights))
    return Prepared(experiment=experiment, opened=opened, network=network)


def _refuse_misfit(config: TuningConfig, network: StagedNetwork, weights: TunedWeights) -> None:
    own = network.module if isinstance(network.module, ResNetPass) else None
    if own is not None and weights.kind != "all":
        raise InputError(f"tuned={config.tuned}: of this network ({network.name}) all weights are tuned; use tuned=all")
    if config.mac_budget is None:
        return
    if own is None or not own.gated:
        raise InputError("mac_budget: only a network with channel gates has one; give the folder of a gated run as network")
    own.network.macs.require_budget(config.mac_budget)


# --- which images are trained on -----------------------------------------------------------------------------------------


def _plan(config: TuningConfig, experiment: Experiment, opened: Sequence[EncodedSubject]) -> Plan:
    stimuli = experiment.stimuli
    ids = list(dict.fromkeys(name for given in opened for name in given.train.ids))
    require_apart(ids, experiment.split.test, stimuli)
    rows = stimuli.rows(ids)
    held_out: frozenset[str] = frozenset()
    if config.validation_share > 0:
        folds = folds_by_source([stimuli.sources[row] for row in rows], round(1 / config.validation_share), config.seed)
        held_out = frozenset(ids[place] for place in folds[0][1])
    return Plan(stimuli, ids, rows, held_out)


def plan_of(config: TuningConfig, experiment: Experiment, subject: str) -> Plan:
    """The images of the network that this subject is encoded with; opens its subjects."""
    members = networks_of(config, experiment)[tag_of(config, subject)]
    return _plan(config, experiment, [open_named(config, experiment, name) for name in members])


def choice_folds(config: TuningConfig, plan: Plan, given: EncodedSubject) -> Folds | None:
    """Folds that choose layer and alpha on a tuned network: each holds out some of the images that it was not tuned on.

    Training rows of a fold are all other training images but those of the held-out source pictures. None (the usual folds)
    where nothing was held out from tuning.
    """
    held_out_sources = (
        {plan.stimuli.sources[row] for row in plan.stimuli.rows(sorted(plan.held_out))} if plan.held_out else set()
    )
    sources = np.array(given.sources)
    sources_held_out = sorted(held_out_sources & set(given.sources))
    if not sources_held_out:
        return None
    chosen = folds_by_source(sources_held_out, min(config.folds, len(sources_held_out)), config.seed)
    folds = []
    for _, numbers in chosen:
        inside = np.isin(sources, [sources_held_out[number] for number in numbers])
        folds.append((np.flatnonzero(~inside), np.flatnonzero(inside)))
    return folds


# --- the part that is trained ----------------------------------------------------------------------------------------------


def pixels(network: StagedNetwork, stimuli: Stimuli, rows: np.ndarray) -> Callable[[np.ndarray], Tensor]:
    """Preprocessed images of some of these rows."""

    def read(places: np.ndarray) -> Tensor:
        pictures = [stimuli.image(int(rows[place])) for place in places]
        same = len({picture.shape for picture in pictures}) == 1
        return network.preprocess(np.stack(pictures) if same else pictures)

    return read


def _cut_at(network: StagedNetwork, weights: TunedWeights) -> str:
    """The stage whose output is kept."""
    if weights.kind == "after":
        return weights.module
    stages = [stage for stage in network.stages if stage != output_stage(network)]
    if weights.count >= len(stages):
        raise InputError(
            f"tuned=last:{weights.count}: the network has {len(stages)} stages ({', '.join(stages)}) beside its output; "
            f"give up to {len(stages) - 1}, or tuned=all"
        )
    return stages[-weights.count - 1]


def _part(config: TuningConfig, network: StagedNetwork, plan: Plan) -> tuple[TunedPart, Callable[[], None]]:
    """What is trained of the network, and what to do after it."""
    weights, module = TunedWeights.parse(config.tuned), network.module
    read, n = pixels(network, plan.stimuli, plan.rows), len(plan.ids)
    if weights.kind == "lora":
        adapted = add_adapters(module, rank=weights.count, seed=config.seed)
        trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
        return TunedPart(network=module, read=read, n_images=n, parameters=trained), lambda: setattr(
            network, "module", merge(adapted)
        )
    if weights.kind == "all":
        gates = module if isinstance(module, ResNetPass) and module.gated else None
        every = dict(module.named_parameters())
        return TunedPart(network=module, read=read, n_images=n, parameters=every, gates=gates), lambda: None
    stage = _cut_at(network, weights)
    rest = rest_after(module, stage)
    below = StagedNetwork(module, name=network.name, stages=(stage,), preprocessing=network.preprocessing)
    images = Stimuli(
        ids=plan.ids, sources=plan.ids, read_image=lambda place: plan.stimuli.image(int(plan.rows[place]))
    )  # fmt: skip
    kept = cached_features(below, images)[stage]
    first = np.arange(min(4, len(plan.ids)))
    require_same(module, rest, read(first), torch.from_numpy(np.array(kept[first])).to(network.device))
    module.requires_grad_(False)
    trained = named_parameters_of(rest, module)
    for value in trained.values():
        value.requires_grad_(True)
    return TunedPart(
        network=rest,
        read=lambda places: torch.from_numpy(np.array(kept[places])).to(network.device),
        n_images=n,
        parameters=trained,
    ), lambda: None


@torch.no_grad()
def outputs_of(network: StagedNetwork, stimuli: Stimuli, rows: np.ndarray) -> np.ndarray:
    """Output of a network (logits, or pooled features) for these images: float32 (image, dim)."""
    read, parts = pixels(network, stimuli, rows), []
    with network.evaluating():
        for start in range(0, len(rows), IMAGES_PER_PASS):
            parts.append(network(read(np.arange(start, min(start + IMAGES_PER_PASS, len(rows))))).float().cpu().numpy())
    return np.concatenate(parts)


# --- units of work ---------------------------------------------------------------------------------------------------------


def fit(config: TuningConfig, prepared: Prepared, run: RunFolder) -> None:
    """All units of the run, resumable; then the run is finished. Checkpoints: see the module."""
    experiment, opened = prepared.experiment, prepared.opened
    names, members = names_of(config, experiment), networks_of(config, experiment)
    units: list[Unit] = [_open_unit(prepared)]
    units += [_tune_unit(config, tag, opened.plans[tag], [opened.subjects[name] for name in members[tag]]) for tag in members]
    facts: dict[str, list[str]] = {}
    for tag, checkpoint in ((UNTUNED, UNTUNED), (None, "encoder")):
        for name in names:
            units.append(_encoder_unit(config, opened, run, name, tag or tag_of(config, name), checkpoint, facts))
    if may_fall_back(config):
        units += [_choice_unit(config, opened, run, name) for name in names]
    run_units(run, units)
    layers = facts.get("layers") or list(load_tuned(run, UNTUNED).stages)
    run.finish(subjects=names, layers=layers, tuned_on={name: list(members[tag_of(config, name)]) for name in names})


def _open_unit(prepared: Prepared) -> Unit:
    def calibrate_alone(run: RunFolder) -> None:
        network, stimuli = prepared.network, prepared.experiment.stimuli
        calibrate_embedded(network, stimuli, sorted(int(row) for row in stimuli.rows(prepared.experiment.split.train)))
        run.save(network_state(network), name=f"network-{UNTUNED}")

    return lambda run, state, save: first_alone(lambda: calibrate_alone(run))


def _tune_unit(config: TuningConfig, tag: str, plan: Plan, opened: Sequence[EncodedSubject]) -> Unit:
    def work(run: RunFolder, state: State | None, save: Callable[[State], None]) -> None:
        network = load_tuned(run, UNTUNED)
        voxels = {given.name: _voxels(config, network, given) for given in opened}
        part, close = _part(config, network, plan)
        with torch.no_grad():
            n_features = part.network.eval()(part.read(np.arange(2))).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            head = config.head(n_features, {name: len(chosen) for name, chosen in voxels.items()})
        subjects = {given.name: _tuned_subject(given, plan, voxels[given.name]) for given in opened}
        constraint = _constraint(config, part, plan)
        tuner = ResponseTuner(part, head, subjects, config, constraint=constraint)
        if constraint is not None:
            constraint.rate = RATE * STEPS_OF_RATE / tuner.n_steps
        run_to_end(tuner, f"tuning on {tag}", run, state=state, save=save, phase="tuning", network=tag)
        found = tuner.finish()
        close()
        share = None if constraint is None else _settle(part, constraint.budget)
        run.log(network=tag, n_voxels={name: len(chosen) for name, chosen in voxels.items()}, mac_share=share, **found)
        run.save({**network_state(network), "voxels": {name: torch.from_numpy(v) for name, v in voxels.items()}},
                 name=f"network-{tag}")  # fmt: skip
        run.save({"n_features": n_features, "weights": dict(head.state_dict())}, name=f"head-{tag}")

    return work


def _voxels(config: TuningConfig, network: StagedNetwork, given: EncodedSubject) -> np.ndarray:
    choice, targets = VoxelChoice.parse(config.voxels), None
    if choice.kind == "selected":
        targets = outputs_of(network, given.stimuli, given.stimuli.rows(given.train.ids))
    return chosen_voxels(choice, given, targets, seed=config.seed)


def _tuned_subject(given: EncodedSubject, plan: Plan, voxels: np.ndarray) -> TunedSubject:
    responses = torch.from_numpy(given.train.read(voxels))
    row_of = {name: row for row, name in enumerate(plan.ids)}
    rows = np.array([row_of[name] for name in given.train.ids])
    own, held_out = plan.tuned_rows(given), plan.held_out_rows(given)
    return TunedSubject(
        rows=rows[own],
        responses=responses[own],
        held_out_rows=rows[held_out],
        held_out_responses=responses[held_out],
    )


def _encoder_unit(
    config: TuningConfig,
    opened: Opened,
    run: RunFolder,
    name: str,
    tag: str,
    checkpoint: str,
    facts: dict[str, list[str]],
) -> Unit:
    given = opened.subjects[name]

    def layers() -> dict[str, np.ndarray]:
        features = layers_of(config, run, tag, given.stimuli, given.train.ids)
        facts["layers"] = list(features.layers)
        return features.of(given.train.ids)

    folds = None if tag == UNTUNED else choice_folds(config, opened.plans[tag], given)
    return encoder_unit(given, layers, config, name=checkpoint, folds=folds, network=tag)


def may_fall_back(config: TuningConfig) -> bool:
    """Whether the untuned network may encode: not under a budget that it does not keep, nor without held-out errors."""
    return config.fall_back and config.validation_share > 0 and config.mac_budget is None and config.layer_choice != "banded"


def _choice_unit(config: TuningConfig, opened: Opened, run: RunFolder, name: str) -> Unit:
    given = opened.subjects[name]
    folds = choice_folds(config, opened.plans[tag_of(config, name)], given)
    if folds is None:  # none of the held-out images was shown to this subject
        return lambda run, state, save: None

    def untuned() -> dict[str, np.ndarray]:
        return layers_of(config, run, UNTUNED, given.stimuli, given.train.ids).of(given.train.ids)

    return choice_unit(given, untuned, config, folds)


def layers_of(config: TuningConfig, run: RunFolder, tag: str, stimuli: Stimuli, ids: Sequence[str]) -> LayerFeatures:
    """Layers of a network of the run ('untuned' or a tag) for these images."""
    return LayerFeatures(NetworkSource(network=load_tuned(run, tag), pool=config.pool), stimuli, ids)


# --- multiply-adds ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def mac_share(gates: ResNetPass, read: Callable[[np.ndarray], Tensor], n_images: int) -> float:
    """Mean share of the dense network's multiply-adds at inference over images 0 to n_images."""
    gates.eval()
    gates.generator, total = None, 0.0
    for start in range(0, n_images, IMAGES_PER_PASS):
        places = np.arange(start, min(start + IMAGES_PER_PASS, n_images))
        gates(read(places))
        total += float(gates.hard_share) * len(places)
    return total / n_images


def _constraint(config: TuningConfig, part: TunedPart, plan: Plan) -> BudgetConstraint | None:
    if part.gates is None:
        return None
    budget = config.mac_budget
    if budget is None:
        budget = mac_share(part.gates, part.read, min(N_BUDGET_IMAGES, len(plan.ids)))
        log(f"MAC budget: {budget:.3f}, the share that the untuned network has")
    return BudgetConstraint(budget=budget, rate=RATE, stiffness=STIFFNESS, descent_share=0.5)


def _settle(part: TunedPart, budget: float) -> float | None:
    """One shift of all logits that meets the budget on training images; the share then."""
    if part.gates is None:
        return None
    gates, n_images = part.gates, min(N_BUDGET_IMAGES, part.n_images)
    found = shift_onto(
        budget, gates.network, lambda: mac_share(gates, part.read, n_images), tolerance=BUDGET_TOLERANCE, at_most=True
    )
    log(f"MAC share on training images {found.share:.4f} (asked {budget:.4f}); logits shifted by {found.shift:+.4f}")
    return found.share
