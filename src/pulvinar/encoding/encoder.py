"""An encoding model of one subject: layers of features -> voxels; a layer and a penalty chosen by folds over training images.

Folds are over source pictures, so that crops of one picture and repeats of one image are never on both sides. `EncoderTrainer`
scores every layer, penalty and voxel, block by block (it can be stopped and resumed between blocks), and then fits all training
images. The penalty is ridge's alpha, or the number of components of partial least squares.

The result is a plain state: `parts`, each of which predicts some voxels from one layer by (x - mean) axes weights; `centre`
is added. `predict` sums them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pulvinar.core import devices, memory
from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.errors import ConfigError, InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.data.splits import folds_by_source
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import Record
from pulvinar.linear import partial_least_squares as pls
from pulvinar.linear import ridge, ridge_layer
from pulvinar.linear.banded_ridge import fit_banded
from pulvinar.scores.encoding import correlations, varying

LayerChoice = Literal["voxel", "roi", "single", "concatenated", "banded"]
Regression = Literal["ridge", "partial_least_squares"]
Layers = Mapping[str, np.ndarray]
Read = Callable[[np.ndarray], np.ndarray]
Folds = Sequence[tuple[np.ndarray, np.ndarray]]  # (training rows, held-out rows)

LEAST_VARIANCE = 1e-12  # of z-scored responses: less is rounding
ALPHAS = tuple(float(10**power) for power in range(-1, 12))  # the paper's end at 1e7, too small for layers of large features


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Settings of the regression and its choices."""

    seed: int = setting(
        0,
        "folds, permutations, draws of banded ridge, random weights of a network without weights",
        at_least=0,
        below=LARGEST_SEED,
        heading="Regression",
    )
    regression: Regression = setting("ridge", "ridge or partial_least_squares")
    alphas: tuple[float, ...] = setting(ALPHAS, "penalties to choose from, per voxel (paper: to 1e7)", above=0, filled=True)
    n_pls_components: tuple[int, ...] = setting(
        (1, 2, 4, 8, 16, 32),
        "numbers of components of partial least squares",
        above=0,
        filled=True,
        counts="regression=partial_least_squares",
    )
    layer_choice: LayerChoice = setting(
        "voxel", "layer of each voxel, roi or single for all; concatenated; or banded (himalaya)"
    )
    pca: int | None = setting(1000, "principal components of a layer before the ridge (paper: 1000); none: all", at_least=1)
    folds: int = setting(5, "inner folds over the training images' source pictures (paper: 5)", at_least=2)
    n_draws: int = setting(50, "draws of layer shares for banded ridge", at_least=1, counts="layer_choice=banded")
    voxels_per_block: int = setting(4096, "voxels in memory at a time", at_least=1)

    @property
    def penalties(self) -> tuple[float, ...]:
        """What is chosen from: alphas, or numbers of components."""
        values = self.n_pls_components if self.regression == "partial_least_squares" else self.alphas
        return tuple(sorted(float(value) for value in values))


def concatenated(layers: Layers, rows: np.ndarray | slice = slice(None), scales: Sequence[float] | None = None) -> np.ndarray:
    """All layers side by side, each divided by its scale."""
    parts = [np.asarray(values[rows], np.float32).reshape(len(values[rows]), -1) for values in layers.values()]
    return np.concatenate([part / scale for part, scale in zip(parts, scales or [1.0] * len(parts), strict=True)], axis=1)


def total_spread(values: np.ndarray) -> float:
    """Root of the summed variance of all features: what makes layers comparable side by side."""
    spread = float(np.sqrt(np.asarray(values, np.float32).reshape(len(values), -1).var(0, dtype=np.float64).sum()))
    return spread if spread > 0 else 1.0


class EncoderTrainer:
    """Scores of every layer, penalty and voxel, then the fit. `layers`: name -> features of the training images (image, ...).

    read: voxel places (0 to n_voxels) -> responses (image, voxel). groups: voxels that share a layer, for layer_choice=roi.
    folds: by source picture where none are given. bytes_to_read: what `read` needs for a voxel, where memory is limited.
    """

    def __init__(
        self,
        layers: Layers,
        read: Read,
        *,
        n_voxels: int,
        sources: Sequence[str],
        settings: EncoderSettings,
        groups: np.ndarray | None = None,
        folds: Folds | None = None,
        bytes_to_read: float = 0.0,
    ) -> None:
        self.settings, self.read, self.n_voxels = settings, read, n_voxels
        self.device = devices.current()
        if settings.layer_choice == "concatenated":
            spreads = [total_spread(values) for values in layers.values()]
            self.layers: Layers = {"all": concatenated(layers, scales=spreads)}
            self.scales = [spreads]
        else:
            self.layers, self.scales = layers, [[1.0] for _ in layers]
        self.folds = folds_by_source(sources, settings.folds, settings.seed) if folds is None else folds
        self.groups = _groups(settings.layer_choice, groups, n_voxels)
        self._cut(self._block_size(bytes_to_read, settings.voxels_per_block))
        self._bytes_to_read = bytes_to_read
        self.n_done, self.scored = 0, ""
        self.scores = torch.full((len(self.layers), len(settings.penalties), n_voxels), -torch.inf)
        self.variance = torch.ones(n_voxels)
        self._ready: dict[int, ridge_layer.Layer] = {}

    def _block_size(self, bytes_to_read: float, most: int) -> int:
        """Voxels of a block: as many as memory allows beside the largest layer and the weights of all voxels."""
        if self.settings.regression == "partial_least_squares":
            most = self.n_voxels
        if memory.limit() is None:
            return most
        if self.settings.regression != "ridge" or self.settings.layer_choice == "banded":
            raise ConfigError(
                "memory: partial least squares and banded ridge hold all voxels at once; regression=ridge keeps it, without "
                "layer_choice=banded"
            )
        sizes = []
        for name, values in self.layers.items():
            n_images, n_features = len(values), int(np.prod(np.shape(values)[1:]))
            fixed, each = ridge.bytes_of(
                n_images,
                n_features,
                n_folds=len(self.folds),
                n_alphas=len(self.settings.penalties),
                n_components=self.settings.pca,
            )
            n_weights = min(n_images, n_features, self.settings.pca or n_features)
            fixed += 3 * 4.0 * n_weights * (self.n_voxels + n_features)  # as they are, and twice while they are written
            what = f"ridge on {name} ({n_images} images x {n_features} features, {self.n_voxels} voxels)"
            sizes.append(memory.block_size(each + bytes_to_read, most=most, what=what, fixed=fixed))
        return min(sizes)

    def _cut(self, size: int) -> None:
        self.size, self.blocks = size, blocks_of(self.n_voxels, size)
        self.n_units = 1 if self.settings.layer_choice == "banded" else len(self.layers) * len(self.blocks)

    @property
    def done(self) -> bool:
        """Whether every layer and block has been scored."""
        return self.n_done >= self.n_units

    @property
    def position(self) -> tuple[int, int]:
        """Blocks of voxels of a layer that are scored, and all of them."""
        return self.n_done, self.n_units

    def note(self, record: Record | None) -> str:
        """The layer and the voxels that were scored last."""
        return self.scored

    def state(self) -> State:
        """What `restore` needs."""
        return {"n_done": self.n_done, "scores": self.scores, "variance": self.variance, "size": self.size}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken, in blocks of the same size; `ConfigError` where memory is too little for that."""
        size = int(state.get("size", self.size))
        if size > self._block_size(self._bytes_to_read, size):
            raise ConfigError(
                f"memory: this fit was begun in blocks of {size} voxels, which need more; continue it with as much as it began "
                "with, or without a limit"
            )
        self._cut(size)
        self.n_done, self.scores, self.variance = int(state["n_done"]), state["scores"], state["variance"]

    def run(self) -> Iterator[None]:
        """Score what is left, a block of voxels of a layer at every turn."""
        if self.settings.layer_choice == "banded":
            self.n_done = self.n_units  # himalaya's search is one piece, made in `fit`
            return
        for number, (name, values) in enumerate(self.layers.items()):
            left = self.blocks[max(0, self.n_done - number * len(self.blocks)) :]
            if not left:
                continue
            for block, scores in self._search(number, np.asarray(values), left):
                self.scores[number, :, block] = scores.cpu()
                self.n_done += 1
                self.scored = f"{name}, voxels {block.start} to {block.stop}"
                yield

    def _search(self, number: int, values: np.ndarray, blocks: Sequence[slice]) -> Iterator[tuple[slice, Tensor]]:
        penalties = torch.tensor(self.settings.penalties, dtype=torch.float64, device=self.device)
        if self.settings.regression == "partial_least_squares":
            yield from ((block, self._search_components(flat(values), block)) for block in blocks)
            return
        ready = self._prepare(number, self._tensor(flat(values)))
        folds = [(self._tensor(train), self._tensor(held_out)) for train, held_out in self.folds]
        yield from ridge.search(
            ready,
            folds,
            penalties,
            self._read_block,
            blocks,
            n_components=self.settings.pca,
            n_voxels=self.n_voxels,
        )

    def _prepare(self, number: int, features: Tensor) -> ridge_layer.Layer:
        """The layer made ready; kept where it is small."""
        if number in self._ready:
            return self._ready[number]
        smallest, n_components = min(self.settings.alphas), self.settings.pca
        layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=smallest, n_components=n_components)
        if layer.reduction is not None:
            self._ready[number] = layer
        return layer

    def _read_block(self, block: slice) -> Tensor:
        responses = self._tensor(self.read(np.arange(block.start, block.stop)))
        self.variance[block] = responses.var(0, correction=0).cpu()
        return responses

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _search_components(self, values: np.ndarray, block: slice) -> Tensor:
        responses, counts = self._read_block(block).cpu().numpy(), [int(count) for count in self.settings.penalties]
        total = np.zeros((len(counts), responses.shape[1]))
        for train, held_out in self.folds:
            predicted = pls.held_out_predictions(values[train], responses[train], values[held_out], counts)
            total -= ((predicted - responses[held_out]) ** 2).mean(1) / len(self.folds)
        return torch.from_numpy(total).float()

    def choice(self) -> tuple[np.ndarray, np.ndarray]:
        """Layer and place of the penalty (voxel,), by the folds: a layer per voxel or group, a penalty per voxel."""
        order = torch.tensor(self.settings.penalties, dtype=torch.float64)
        found = [
            ridge.best_alpha(scores, order if self.settings.regression == "ridge" else 1 / order) for scores in self.scores
        ]
        places = torch.stack([place for place, _ in found]).numpy()
        best = torch.stack([score for _, score in found]).double() / self.variance.double().clamp(min=LEAST_VARIANCE)
        layers = best_layers(np.where(self._varies, best.numpy(), 0.0), self.groups)  # others have no say in a layer
        return layers, places[layers, np.arange(self.n_voxels)]

    def fit(self) -> State:
        """All training images, each voxel with its layer and penalty."""
        if self.settings.layer_choice == "banded":
            return self._fit_banded()
        layers, places = self.choice()
        penalties = np.array(self.settings.penalties)[places]
        centre, parts = torch.zeros(self.n_voxels), {}
        for number, values in enumerate(self.layers.values()):
            voxels = np.flatnonzero(layers == number)
            if not len(voxels):
                continue
            if self.settings.regression == "partial_least_squares":
                mean, axes, weights, means = self._solve_components(flat(values), voxels, penalties[voxels])
            else:
                mean, axes, weights, means = self._solve_ridge(number, flat(values), voxels, penalties[voxels])
            centre[voxels] = means
            parts[str(number)] = {
                "layer": number,
                "voxels": torch.from_numpy(voxels),
                "mean": mean,
                "axes": axes,
                "weights": weights,
            }
        return {
            "parts": parts,
            "centre": centre,
            "layers": torch.from_numpy(layers),
            "penalties": torch.from_numpy(penalties),
            "names": list(self.layers),
            "scales": self.scales,
            "layer_scores": torch.from_numpy(self.held_out_scores().astype(np.float32)),
        }

    def held_out_scores(self) -> np.ndarray:
        """How well each layer explains each voxel on the inner held-out images, with its best penalty: R^2 (layer, voxel).

        What the layer is chosen by: 1 - mean squared error / variance, on training images; not a score to report. NaN where a
        voxel's responses to the training images do not vary.
        """
        best = self.scores.amax(1).double() / self.variance.double().clamp(min=LEAST_VARIANCE)
        return np.where(self._varies, (1 + best).numpy(), np.nan)

    @property
    def _varies(self) -> np.ndarray:
        """(voxel,) whether its (z-scored) responses to the training images vary."""
        return self.variance.numpy() > LEAST_VARIANCE

    def _solve_ridge(
        self, number: int, values: np.ndarray, voxels: np.ndarray, alphas: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features = self._tensor(values)
        ready = self._prepare(number, features)
        part = ridge.whole(ready, n_components=self.settings.pca)
        weights, means = torch.empty(len(part.eigenvalues), len(voxels)), torch.empty(len(voxels))
        for block in blocks_of(len(voxels), self.size):
            responses = self._tensor(self.read(voxels[block]))
            mean = responses.mean(0)
            coordinates = ridge.coordinates(part, ridge.moments(ready, part, responses - mean)[0])
            means[block], weights[:, block] = mean.cpu(), ridge.weights(part, coordinates, self._tensor(alphas[block])).cpu()
        return ready.mean.cpu(), ridge.axes(ready, part, features=features).cpu(), weights, means

    def _solve_components(
        self, values: np.ndarray, voxels: np.ndarray, counts: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        responses = self.read(np.arange(self.n_voxels))
        mean, rotations, loadings = pls.fit_components(values, responses, int(max(self.settings.penalties)))
        kept = loadings[:, voxels] * (np.arange(len(loadings))[:, None] < counts)
        tensors = [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in (mean, rotations, kept)]
        return tensors[0], tensors[1], tensors[2], torch.from_numpy(responses[:, voxels].mean(0))

    def _fit_banded(self) -> State:
        responses = self.read(np.arange(self.n_voxels))
        fitted = fit_banded(
            [flat(values) for values in self.layers.values()],
            responses,
            np.array(self.settings.alphas),
            self.folds,
            fit_intercept=True,
            n_draws=self.settings.n_draws,
            voxels_per_block=self.settings.voxels_per_block,
            seed=self.settings.seed,
        )
        every, parts = torch.arange(self.n_voxels), {}
        for number, (mean, axes, weights) in enumerate(zip(fitted.means, fitted.axes, fitted.weights, strict=True)):
            arrays = {"mean": mean, "axes": np.eye(len(mean)) if axes is None else axes, "weights": weights}
            tensors = {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in arrays.items()}
            parts[str(number)] = {"layer": number, "voxels": every, **tensors}
        return {
            "parts": parts,
            "centre": torch.from_numpy(fitted.intercept.astype(np.float32)),
            "layers": torch.from_numpy(fitted.shares.argmax(0)),
            "penalties": torch.from_numpy(fitted.alphas.astype(np.float64)),
            "names": list(self.layers),
            "scales": self.scales,
        }

    def best_on(self, new: Layers, measured: np.ndarray) -> np.ndarray | None:
        """The r that would be reported if layer and penalty were chosen on the very images they are reported on: optimistic.

        new: features of the test images; measured: their responses (image, voxel). The layer of a group is that of the best
        mean r, the penalty of a voxel that of its best r. NaN where a voxel's measured responses do not vary. None for a banded
        fit, whose search has no list of penalties.
        """
        if self.settings.layer_choice == "banded":
            return None
        if self.settings.layer_choice == "concatenated":
            new = {"all": concatenated(new, scales=self.scales[0])}
        best = np.empty((len(self.layers), self.n_voxels))
        for number, (values, others) in enumerate(zip(self.layers.values(), new.values(), strict=True)):
            for block, predictions in self._all_predictions(number, flat(values), flat(others)):
                r = np.stack([np.nan_to_num(correlations(predicted, measured[:, block])) for predicted in predictions])
                best[number, block] = r.max(0)
        chosen = best[best_layers(best, self.groups), np.arange(self.n_voxels)]
        return np.where(varying(measured), chosen, np.nan)

    def _all_predictions(
        self, number: int, values: np.ndarray, new: np.ndarray
    ) -> Iterator[tuple[slice, Iterator[np.ndarray]]]:
        if self.settings.regression == "partial_least_squares":
            counts = [int(count) for count in self.settings.penalties]
            yield (
                slice(0, self.n_voxels),
                iter(pls.held_out_predictions(values, self.read(np.arange(self.n_voxels)), new, counts)),
            )
            return
        features = self._tensor(values)
        ready = self._prepare(number, features)
        part = ridge.whole(ready, n_components=self.settings.pca)
        rows = (self._tensor(new) - ready.mean) @ ridge.axes(ready, part, features=features)
        alphas = torch.tensor(self.settings.penalties, dtype=torch.float64, device=self.device)
        for block in self.blocks:
            responses = self._tensor(self.read(np.arange(block.start, block.stop)))
            coordinates = ridge.coordinates(part, ridge.moments(ready, part, responses - responses.mean(0))[0])
            size = coordinates.shape[1]
            yield block, ((rows @ ridge.weights(part, coordinates, alpha.expand(size))).cpu().numpy() for alpha in alphas)


def predict(state: State, layers: Layers) -> np.ndarray:
    """Predicted responses float32 (image, voxel) of a fitted state; `layers` as they were fitted, of other images."""
    device = devices.current()
    given = {name: torch.from_numpy(flat(np.asarray(values))).to(device) for name, values in layers.items()}
    return readout(on_device(state, device), given).cpu().numpy()


def on_device(state: State, device: torch.device) -> State:
    """A fitted state with what `readout` reads on this device."""
    parts = {
        key: {name: value.to(device) if isinstance(value, Tensor) else value for name, value in part.items()}
        for key, part in state["parts"].items()
    }
    return {**state, "parts": parts, "centre": state["centre"].to(device)}


def readout(state: State, layers: Mapping[str, Tensor]) -> Tensor:
    """`predict` on tensors (image, ...), with gradients to the layers where they have them."""
    names = list(state["names"])
    if names == ["all"] and list(layers) != ["all"]:
        scales = state["scales"][0]
        parts = [values.flatten(1) / scale for values, scale in zip(layers.values(), scales, strict=True)]
        layers = {"all": torch.cat(parts, dim=1)}
    missing = [name for name in names if name not in layers]
    if missing:
        raise InputError(f"layers: {', '.join(missing)} are needed to predict, {', '.join(layers)} came")
    n_images = len(next(iter(layers.values())))
    columns, found = [], []
    for part in state["parts"].values():
        values = layers[names[int(part["layer"])]].flatten(1)
        if values.shape[1] != len(part["mean"]):
            raise InputError(
                f"layer '{names[int(part['layer'])]}': {len(part['mean'])} features were fitted, {values.shape[1]} came"
            )
        columns.append(part["voxels"])
        found.append(((values - part["mean"]) @ part["axes"]) @ part["weights"])
    out = state["centre"].expand(n_images, -1)
    return out.index_add(1, torch.cat(columns), torch.cat(found, dim=1)) if found else out.clone()


def flat(values: np.ndarray) -> np.ndarray:
    """Features as writable float32 (image, feature)."""
    return np.require(np.asarray(values, np.float32).reshape(len(values), -1), requirements=("C", "W"))


def best_layers(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Layer (voxel,) of the best mean score of each group of voxels. scores: (layer, voxel); groups: (voxel,), from 0."""
    count = np.bincount(groups)
    return np.stack([np.bincount(groups, weights=row) / count for row in scores]).argmax(0)[groups]


def _groups(choice: LayerChoice, groups: np.ndarray | None, n_voxels: int) -> np.ndarray:
    if choice == "roi" and groups is None:
        raise InputError("layer_choice=roi: a group per voxel is needed, none came")
    if choice == "roi" and groups is not None:
        if len(groups) != n_voxels:
            raise InputError(f"groups: {len(groups)} came for {n_voxels} voxels")
        return groups
    return np.zeros(n_voxels, np.int64) if choice == "single" else np.arange(n_voxels)
