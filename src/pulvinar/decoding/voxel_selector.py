"""VoxelSelector: the voxels that carry labels, or an embedding, by any selector of selection/selectors/.

Importing this module does not load torch, nilearn or nibabel.
"""

import copy
import inspect
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.core.sampling import blocks_of
from pulvinar.data.geometry import Geometry
from pulvinar.learning.inputs import checked_names, refuse_masked
from pulvinar.learning.parameters import check_parameters
from pulvinar.selection import selectors
from pulvinar.selection.cross_fitted_mask import Step, class_targets
from pulvinar.selection.selector import VOXELS_PER_BLOCK, Evidence, Selector
from pulvinar.selection.voxel_mask import voxel_budget

AUTO = "auto"
LEARNED, JOINT = "cross_fitted", "ard"  # of auto; the options of the first are parameters here
MANY_DIMS = 32  # of an embedding, from which on auto takes the second (docs/methods/voxel_selector.md)
OPTIONS = ("ridge", "n_folds", "n_steps", "step_size")
MANY_NUMBERS = 5  # different whole numbers from which labels may well be ratings (ours)
Target = Literal["auto", "classes", "embedding"]


class VoxelSelector(SelectorMixin, BaseEstimator):
    """Select the voxels that carry what `y` asks for: labels of trials, or an embedding of their stimuli.

    For labels, and quantities of few numbers, a mask over voxels is learned in front of a linear readout (`cross_fitted`).
    The readout of each fold is fitted on the other folds' trials and the mask follows what lowers its error on held-out
    trials; the mask is low-passed over neighbouring voxels, and the best `n_voxels` are kept. This is stage 1 of TROI
    (voxel-selection paper, section 2.2) with cross-fitting, for a linear readout solved in closed form: see
    `pulvinar.selection.cross_fitted_mask`.
    For an embedding of 32 numbers or more the voxels of largest prior variance of a linear decoder's weights are kept (`ard`).
    docs/methods/voxel_selector.md says how this was chosen and what it gains over an ANOVA. `method` names other ways.

    Responses are z-scored inside, per voxel, over the trials of the fit; scale runs or sessions yourself beforehand. A voxel
    that is constant over these trials has mask and score 0 and is selected only when no other voxel is left.

    Parameters
    ----------
    n_voxels : int or float, default=0.5
        How many voxels to keep: a count, or a share of all voxels in (0, 1]. Kept exactly.
    method : str, default="auto"
        "auto" (`ard` where y is an embedding of 32 numbers or more, up to 3,000 trials, and no option of cross_fitted is given;
        else `cross_fitted`), or a selector of `pulvinar list` that has a budget and sees no answer: cross_fitted, ard, anova,
        univariate (the cross-validated R2 of a ridge encoding), ceiling (signal to noise over repeats), random, ...
        `ridge`, `n_folds`, `n_steps` and `step_size` are of cross_fitted; `sigma` is of those with a low-pass.
    sigma : float or "auto", default="auto"
        Standard deviation of the low-pass over neighbours, in units of the voxel spacing; 0 for none. "auto" is 1 and, with
        cross_fitted, the one of 0, 0.7 and 1 whose selection on one half of the trials is best on the other half (1 where
        groups are fewer than four). Without coordinates there is no low-pass.
    ridge : float, default=10.0
        Penalty of the readout, in units of a trial's mean squared (masked) response. Large values rank voxels one by one,
        small ones weigh what each adds to the others.
    n_folds : int, default=8
        Folds of trials (of groups, where given); fewer groups than folds make one fold each.
    n_steps : int, default=10
        Steps of the mask.
    step_size : float, default=0.07
        Size of a step: the logarithm of the mask moves by this times the gradient in its root mean squares.
    target : {"auto", "classes", "embedding"}, default="auto"
        What y holds: a class per trial, or numbers to be predicted (an embedding, or a quantity such as ratings). "auto" takes
        text, truth values and whole numbers (trial,) as classes, everything else as numbers; it warns where whole numbers
        have five or more values.
    masker : nilearn masker, default=None
        A fitted nilearn.maskers.NiftiMasker or SurfaceMasker whose `transform` gave X: coordinates come from it. `clone` keeps
        it as it is.
    geometry : pulvinar.data.geometry.Geometry, default=None
        Where the voxels are, instead of a masker; a volume, a surface mesh or points.
    random_state : int, RandomState instance or None, default=0
        Draws folds and halves. The same integer gives the same selection.

    Attributes
    ----------
    mask_ : ndarray of shape (n_voxels_in,)
        The learned weights, 0 or more, of methods that learn some. Voxels that were cut on the way have 0.
    scores_ : ndarray of shape (n_voxels_in,)
        What voxels were selected by, 0 where one is constant; of cross_fitted the low-passed mask sqrt(M . (M * G)), 0 where
        cut.
    path_ : tuple of (n_voxels, held_out_r2)
        Per step of cross_fitted, the voxels in play and the R2 of the held-out targets.
    sigma_ : float
        The width of the low-pass in use, 0 for none.
    n_voxels_ : int
        The budget as a count.
    method_ : str
        The selector in use.
    target_ : str
        What y was taken for, "classes" or "embedding".
    mask_img_ : nibabel.Nifti1Image, or nilearn.surface.SurfaceImage
        The selection in the brain, 0 or 1. Only with a masker, or a geometry that is a volume.
    n_features_in_ : int
        Voxels of X.
    feature_names_in_ : ndarray of str
        One per voxel, where X has names.

    Examples
    --------
    >>> import numpy as np
    >>> from pulvinar.estimators import VoxelSelector
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 20)
    >>> responses = rng.standard_normal((40, 100))
    >>> responses[:, :5] += 2 * labels[:, None]
    >>> VoxelSelector(n_voxels=5).fit(responses, labels).get_support(indices=True).tolist()
    [0, 1, 2, 3, 4]
    """

    # where scikit-learn routes metadata, `groups` is asked for: a fit that never hears of runs would leak in silence
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_voxels": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right")],
        "method": [str],
        "sigma": [StrOptions({"auto"}), Interval(Real, 0, np.inf, closed="left")],
        "ridge": [Interval(Real, 0, np.inf, closed="neither")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, np.inf, closed="neither")],
        "target": [StrOptions({"auto", "classes", "embedding"})],
        "masker": [HasMethods(["fit", "transform"]), None],
        "geometry": [Geometry, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_voxels: int | float = 0.5,
        *,
        method: str = AUTO,
        sigma: float | Literal["auto"] = "auto",
        ridge: float = 10.0,
        n_folds: int = 8,
        n_steps: int = 10,
        step_size: float = 0.07,
        target: Target = "auto",
        masker: Any = None,
        geometry: Geometry | None = None,
        random_state: Any = 0,
    ) -> None:
        self.n_voxels = n_voxels
        self.method = method
        self.sigma = sigma
        self.ridge = ridge
        self.n_folds = n_folds
        self.n_steps = n_steps
        self.step_size = step_size
        self.target = target
        self.masker = masker
        self.geometry = geometry
        self.random_state = random_state

    def fit(self, X: Any, y: Any, coordinates: Any = None, groups: Any = None) -> Self:
        """Learn which voxels to keep.

        X: responses (trial, voxel). y: class labels (trial,), an embedding (trial, dim), or a number per trial (trial,); which
        of them, says `target`. coordinates: (voxel, 3) in mm. groups: (trial,), such as runs or stimulus ids; trials of a group
        are never on both sides of an inner split. scikit-learn's metadata routing brings them unless
        `set_fit_request(groups=False)` says not to.

        Inside `GridSearchCV`, give the positions as `geometry` or `masker`: scikit-learn splits fit parameters that happen to
        be as long as X. Raises ValueError (`InputError`, `DegenerateError`) for values that cannot be used, NaN among them.
        """
        check_parameters(self)
        refuse_masked(X=X, y=y, coordinates=coordinates)
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        targets, labels = _targets(y, len(X), self.target)
        self.target_ = "embedding" if labels is None else "classes"
        self.n_voxels_ = self._budget(X.shape[1])
        geometry = self._find_geometry(coordinates, X.shape[1])
        evidence = Evidence(
            responses=_standardised(X),
            targets=targets,
            stimuli=np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1) if labels is None else labels,
            n_voxels=self.n_voxels_,
            seed=check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
            groups=_checked_groups(groups, labels, len(X)),
            labels=labels,
            geometry=geometry,
            sigma=None if self.sigma == "auto" else float(self.sigma),
        )
        selector = self._selector(evidence)
        self.method_ = selector.name
        found = selector.select(
            evidence, **({name: getattr(self, name) for name in OPTIONS} if selector.name == LEARNED else {})
        )
        self._support, self.scores_, self.sigma_ = found.kept, found.scores.values, found.scores.sigma
        self.path_: tuple[Step, ...] = found.scores.path
        self.__dict__.pop("mask_", None)
        if found.scores.mask is not None:
            self.mask_ = found.scores.mask
        self._draw(geometry)
        return self

    def _selector(self, evidence: Evidence) -> Selector:
        """The method; `InputError` where it is none that can be used here, or would not read what was given."""
        defaults = {name: part.default for name, part in inspect.signature(type(self)).parameters.items()}
        given = [name for name in OPTIONS if getattr(self, name) != defaults[name]]
        if self.method == AUTO:
            joint = selectors.selector(JOINT)
            is_joint = evidence.labels is None and evidence.targets.shape[1] >= MANY_DIMS and joint.missing(evidence) is None
            return joint if is_joint and not given and self.sigma == "auto" else selectors.selector(LEARNED)
        fitting = [one.name for one in selectors.every() if not (one.oracle or one.without_budget)]
        try:
            found = selectors.selector(self.method)
        except NotFoundError as error:
            raise InputError(f"method: {error}") from error
        if found.name not in fitting:
            raise InputError(f"method: '{self.method}' has no budget or sees an answer; there are: {', '.join(fitting)}")
        if given and self.method != LEARNED:
            raise InputError(f"{' and '.join(given)}: of method='{LEARNED}', and method='{self.method}' came")
        if not found.low_pass and self.sigma not in ("auto", 0):
            raise InputError(f"sigma: method='{self.method}' has no low-pass; leave it at 'auto'")
        return found

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return self._support

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def __sklearn_clone__(self) -> Self:
        """An unfitted copy. A masker stays the same object: what was fitted on images cannot be fitted again from X."""
        bare = copy.copy(self)
        bare.masker = bare.geometry = None
        found = BaseEstimator.__sklearn_clone__(bare)  # with what set_output and set_fit_request asked for
        found.masker, found.geometry = self.masker, self.geometry
        return found

    def _budget(self, n_candidates: int) -> int:
        count_or_share = int(self.n_voxels) if isinstance(self.n_voxels, np.integer) else self.n_voxels
        return voxel_budget(count_or_share, n_candidates)

    def _find_geometry(self, coordinates: Any, n_voxels: int) -> Geometry | None:
        """Where the voxels are, from the one source that was given, if any."""
        sources = {"coordinates": coordinates, "masker": self.masker, "geometry": self.geometry}
        given = [name for name, value in sources.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)}: all say where voxels are; give one of them")
        if not given:
            if self.sigma not in ("auto", 0):
                raise InputError(f"sigma: a low-pass of {self.sigma} needs to know where voxels are; give coordinates to fit, "
                                 "or masker or geometry to the constructor")  # fmt: skip
            return None
        if self.geometry is not None:
            geometry = self.geometry
        elif self.masker is not None:
            geometry = _geometry_of(self.masker)
        else:
            geometry = Geometry.from_points(check_array(coordinates, input_name="coordinates", dtype=np.float64))
        if geometry.n_voxels != n_voxels:
            raise InputError(f"{given[0]}: {geometry.n_voxels} places, but X has {n_voxels} voxels")
        return geometry

    def _draw(self, geometry: Geometry | None) -> None:
        """Set `mask_img_` where there is a brain to draw into; forget one of an earlier fit."""
        self.__dict__.pop("mask_img_", None)
        if geometry is not None and geometry.kind == "volume":
            import nibabel

            self.mask_img_ = nibabel.Nifti1Image(geometry.to_volume(self._support).astype(np.uint8), geometry.affine)
        elif self.masker is not None:
            self.mask_img_ = self.masker.inverse_transform(self._support.astype(np.float32))


def _geometry_of(masker: Any) -> Geometry:
    """The voxels, or vertices, of a fitted nilearn masker, in the order of its columns."""
    image = getattr(masker, "mask_img_", None)
    if image is None or any(hasattr(masker, name) for name in ("labels_img", "maps_img", "seeds")):
        raise InputError(
            "masker: a fitted nilearn NiftiMasker or SurfaceMasker is needed (it has mask_img_, a column per voxel), "
            f"{type(masker).__name__} came; for parcels or spheres give their centres as `coordinates` of fit"
        )
    if hasattr(image, "mesh"):
        return _geometry_of_surface(image)
    return Geometry.from_mask(np.asarray(image.dataobj) != 0, image.affine)


def _geometry_of_surface(image: Any) -> Geometry:
    """The vertices of a nilearn SurfaceImage's mask, part after part; parts are moved apart, since inflated ones overlap."""
    points, faces, vertices, n_before, edge = [], [], [], 0, 0.0
    for name, mesh in image.mesh.parts.items():
        place = np.asarray(mesh.coordinates, np.float64)
        place = place + np.array([edge - place[:, 0].min(), 0.0, 0.0])
        edge = place[:, 0].max() + np.ptp(place, axis=0).max()
        points.append(place)
        faces.append(np.asarray(mesh.faces) + n_before)
        vertices.append(np.flatnonzero(np.asarray(image.data.parts[name]).reshape(-1)) + n_before)
        n_before += len(place)
    return Geometry.from_surface(np.concatenate(vertices), np.concatenate(points), np.concatenate(faces))


def _targets(y: Any, n_trials: int, target: Target) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets (trial, target), centred, of mean square 1, and the labels where y holds classes."""
    if y is None:
        raise InputError("VoxelSelector requires y to be passed, but the target y is None")
    y = check_array(y, ensure_2d=False, allow_nd=True, dtype=None, input_name="y", ensure_min_samples=2)
    if len(y) != n_trials:
        raise InputError(f"y: {len(y)} targets for {n_trials} trials of X; each trial needs one")
    kind = type_of_target(y, input_name="y") if y.ndim < 3 else "unknown"
    if target == "classes" or (target == "auto" and kind in ("binary", "multiclass")):
        labels = _labels(y, kind, is_guess=target == "auto")
        return class_targets(labels), labels
    if kind == "unknown" or y.ndim > 2 or y.dtype.kind not in "biuf":
        raise InputError(
            f"Unknown label type: y of {y.dtype} {y.shape}; labels (trial,) or an embedding (trial, dim) of numbers is needed"
        )
    values = y.reshape(n_trials, -1).astype(np.float64)
    values = values - values.mean(0)
    scale = np.sqrt(np.mean(values**2))
    if not scale > 0:
        raise DegenerateError("y: the target is the same in all trials")
    return values / scale, None


def _labels(y: np.ndarray, kind: str, *, is_guess: bool) -> np.ndarray:
    """Class of each trial (trial,); of one-hot rows the column. A warning where a guess may well be wrong."""
    if kind == "multilabel-indicator" and y.ndim == 2 and (y != 0).sum(1).max() == (y != 0).sum(1).min() == 1:
        return (y != 0).argmax(1)
    if kind not in ("binary", "multiclass"):
        raise InputError(
            f"y: target='classes' needs a label per trial (trial,), or one-hot rows, {kind} {y.dtype} {y.shape} came; a "
            "quantity or an embedding is taken by target='embedding'"
        )
    labels = column_or_1d(y, warn=True)
    classes, counts = np.unique(labels, return_counts=True)
    quantity = (
        "; numbers that are a quantity, such as ratings, are taken by target='embedding'" if y.dtype.kind in "iuf" else ""
    )
    if not 1 < len(classes) < len(y):
        raise DegenerateError(
            f"y: {len(classes)} classes in {len(y)} trials; 2 or more, and a class with 2 trials, are needed{quantity}"
        )
    if is_guess and y.dtype.kind in "iuf" and len(classes) >= MANY_NUMBERS:
        warnings.warn(
            f"y: {len(classes)} different whole numbers ({classes[0]:g} to {classes[-1]:g}) are taken as classes, "
            f"{counts.min()} to {counts.max()} trials each; target='classes' says that they are, target='embedding' that they "
            "are a quantity, such as ratings",
            UserWarning,
            stacklevel=4,
        )
    return labels


def _checked_groups(groups: Any, labels: np.ndarray | None, n_trials: int) -> np.ndarray | None:
    """A group per trial, where groups are given."""
    if groups is None:
        return None
    groups = checked_names(groups, n_trials, argument="groups", what="trial")
    names = np.unique(groups)
    if len(names) < 2:
        raise DegenerateError(f"groups: all trials are in group {names.tolist()[0]!r}; 2 or more are needed to hold one out")
    if labels is not None:
        _check_confounded(groups, labels)
    return groups


def _check_confounded(groups: np.ndarray, labels: np.ndarray) -> None:
    """A class that stands in one group is never both trained and held out."""
    alone = [name for name in np.unique(labels).tolist() if len(np.unique(groups[labels == name])) < 2]
    n_classes = len(np.unique(labels))
    if len(alone) > n_classes - 2:
        raise DegenerateError(
            f"groups: {len(alone)} of {n_classes} classes ({', '.join(map(str, alone[:3]))}) stand in one group each, so that "
            "a held-out class was never trained; classes must be spread over groups (runs)"
        )


def _standardised(X: np.ndarray) -> np.ndarray:
    """z-scored responses, float32 (trial, voxel); 0 for a voxel that does not vary.

    A voxel varies if its standard deviation exceeds 1e-10 (float32: 1e-5) of its largest value: less is rounding.
    """
    least, out = 1e-10 if X.dtype == np.float64 else 1e-5, np.empty(X.shape, np.float32)
    for columns in blocks_of(X.shape[1], VOXELS_PER_BLOCK):
        block = X[:, columns].astype(np.float64)
        largest = np.abs(block).max(0)
        block /= np.where(largest > 0, largest, 1.0)
        block -= block.mean(0)
        sd = block.std(0)
        out[:, columns] = np.where(sd > least, block / np.where(sd > least, sd, 1.0), 0.0)
    return out
