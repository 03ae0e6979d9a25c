"""Ridge regression from image features to voxels, with a penalty per voxel: one decomposition for all penalties and voxels.

    w_v = argmin ||y_v - X w||^2 + alpha_v ||w||^2      Hoerl & Kennard 1970; alpha per voxel as in Dupre la Tour et al. 2022

With centred features X (image, feature) and the eigenvectors V, eigenvalues l of X'X, the response to features x is
    (x - mean_x) V diag(1 / (l + alpha_v)) V'X'y_v + mean_y
Where features outnumber images, the same in the eigenvectors Q of XX' (the kernel form):
    (x - mean_x) X'Q diag(1 / (l + alpha_v)) Q'y_v + mean_y
Both are `rows @ diag(1 / (l + alpha)) @ coordinates`: rows belong to the images predicted for, coordinates to the voxels, and
only the middle to alpha. A fold's products are those of all images less those of the images held out, so that X is multiplied
with itself once. Because 1 / (l + alpha) is smooth in l, predictions of several alphas are combinations of fewer. Keeping the
first k eigenvectors is a principal component analysis of the fold's training images before the ridge.

Leave-one-out in closed form (Allen 1974; Golub, Heath & Wahba 1979): e_i = r_i / (1 - h_ii), with the hat matrix of all images,
the intercept's direction 1 / sqrt(n) among what it keeps. With U the other left singular vectors of X,
    r = (I - 11'/n - UU') y + U diag(alpha / (l + alpha)) U'y,
    1 - h_ii = (I - 11'/n - UU')_ii + sum_k u_ik^2 alpha / (l_k + alpha)
Where U and the constant span everything (features outnumber images) the first terms are zero, not what rounding leaves of them:
else r and 1 - h both vanish into rounding as alpha falls, and the smallest alpha wins. float64 throughout.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.linear.ridge_layer import ROWS_PER_BLOCK, Layer, decomposed, products_of

TIE = 1e-10  # as in himalaya: of equal scores the larger alpha is taken, by this slope over log(alpha)
LEAST_LEFT = 1e-9  # smallest share of itself that an image must leave unexplained for leave-one-out (ours)
BASIS_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # share of the largest prediction given up by sharing (ours)

ReadBlock = Callable[[slice], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """A layer's decomposition on the training images of one fold, and the held-out images in its coordinates.

    eigenvalues: (component,), largest last. vectors: of the features or, in the kernel form, of the training images.
    rows: held-out images (held_out, component). shift: mean of the training images' centred features (feature,).
    complete: every image is either in train or held out.
    """

    train: Int[Tensor, " train"]
    held_out: Int[Tensor, " held_out"]
    eigenvalues: Float[Tensor, " component"]
    vectors: Float[Tensor, "row component"]
    rows: Float[Tensor, "held_out component"]
    shift: Float[Tensor, " feature"]
    complete: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedProducts:
    """Few maps from the training responses of a fold to its held-out images, whose combinations give every alpha's prediction.

    combine: (alpha, basis). maps: (basis, held_out, row) that apply to `moments`, or (basis, held_out, component) that apply to
    `coordinates`, whichever is less work; on_moments says which.
    """

    combine: Float[Tensor, "alpha basis"]
    maps: Float[Tensor, "basis held_out operand"]
    on_moments: bool


def whole(layer: Layer, *, n_components: int | None = None) -> Fold:
    """The decomposition on all images, none held out."""
    every = torch.arange(layer.n_images, device=layer.features.device)
    values, vectors = _first((layer.eigenvalues, layer.vectors), n_components)
    return _fold(layer, every, every[:0], values, vectors, layer.features.new_empty(0, len(values)))


def fold(
    layer: Layer, train: Int[Tensor, " train"], held_out: Int[Tensor, " held_out"], *, n_components: int | None = None
) -> Fold:
    """The decomposition on the training images of a fold, with the held-out images in its coordinates."""
    if layer.kernel:
        products, across = layer.products[train][:, train], layer.products[held_out][:, train]
        if layer.fit_intercept:  # centre on the training images of the fold
            column, grand = products.mean(0), products.mean()
            across = across - across.mean(1, keepdim=True) - column + grand
            products = products - column - column[:, None] + grand
        values, vectors = _first(decomposed(products), n_components)
        return _fold(layer, train, held_out, values, vectors, across @ vectors)
    products, shift = _training_products(layer, train, held_out)
    values, vectors = _first(decomposed(products), n_components)
    rows = (layer.features[held_out] - shift) @ vectors.to(layer.features.dtype)
    return _fold(layer, train, held_out, values, vectors, rows, shift)


def _training_products(layer: Layer, train: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
    """X'X of the training images, centred on them, and their mean: all images less the held-out ones if these are the rest."""
    features, dtype = layer.features, layer.products.dtype
    shift = features.new_zeros(features.shape[1])
    if not _complementary(layer.n_images, train, held_out):
        rows = features[train]
        shift = rows.mean(0) if layer.fit_intercept else shift
        return products_of(rows - shift, kernel=False, dtype=dtype), shift
    out = features[held_out].to(dtype)
    products = layer.products - out.T @ out
    if layer.fit_intercept:
        mean = -out.sum(0) / len(train)  # all images have mean 0
        products -= len(train) * torch.outer(mean, mean)
        shift = mean.to(features.dtype)
    return products, shift


def _complementary(n_images: int, train: Tensor, held_out: Tensor) -> bool:
    return len(train) + len(held_out) == n_images and len(torch.unique(torch.cat([train, held_out]))) == n_images


def _first(decomposition: Sequence[Tensor], n_components: int | None) -> tuple[Tensor, Tensor]:
    """The components that carry anything (others are rounding, and have no weight in either form), the largest k of them."""
    values, vectors = decomposition
    kept = int((values > torch.finfo(values.dtype).eps * len(values) * values[-1]).sum())
    kept = max(1, kept if n_components is None else min(kept, n_components))
    return values[-kept:], vectors[:, -kept:]


def _fold(
    layer: Layer,
    train: Tensor,
    held_out: Tensor,
    values: Tensor,
    vectors: Tensor,
    rows: Tensor,
    shift: Tensor | None = None,
) -> Fold:
    dtype = layer.features.dtype
    return Fold(
        train=train,
        held_out=held_out,
        eigenvalues=values,
        vectors=vectors.to(dtype),
        rows=rows.to(dtype),
        shift=layer.features.new_zeros(layer.features.shape[1]) if shift is None else shift,
        complete=_complementary(layer.n_images, train, held_out),
    )


def moments(
    layer: Layer,
    part: Fold,
    responses: Float[Tensor, "image voxel"],
    *,
    cross: Float[Tensor, "feature voxel"] | None = None,
    held_out_cross: Float[Tensor, "feature voxel"] | None = None,
) -> tuple[Float[Tensor, "row voxel"], Float[Tensor, " voxel"]]:
    """What a fold needs of the responses: X'Y of its training images (in the kernel form these Y), centred, and their mean.

    cross: X'Y over all images, held_out_cross: over the held-out ones, where they are at hand; a fold then costs nothing more.
    Responses of large mean lose precision in float32: give them centred.
    """
    train = responses[part.train]
    mean = train.mean(0) if layer.fit_intercept else train.new_zeros(train.shape[1])
    if layer.kernel:
        return train - mean, mean
    if cross is not None and len(part.train) == layer.n_images:
        return cross, mean
    if cross is None or held_out_cross is None or not part.complete:
        return (layer.features[part.train] - part.shift).T @ (train - mean), mean
    own = cross - held_out_cross
    return (own - len(part.train) * torch.outer(part.shift, mean) if layer.fit_intercept else own), mean


def coordinates(part: Fold, sums: Float[Tensor, "row voxel"]) -> Float[Tensor, "component voxel"]:
    """The moments in the coordinates of a fold's components."""
    return part.vectors.T @ sums


def weights(
    part: Fold, projected: Float[Tensor, "component voxel"], alphas: Float[Tensor, " voxel"]
) -> Float[Tensor, "component voxel"]:
    """Weights of the components, each voxel with its own alpha: predictions are `rows @ weights + mean`."""
    return projected / (part.eigenvalues.to(projected.dtype)[:, None] + alphas.to(projected.dtype))


def rows_of(layer: Layer, part: Fold, features: Float[Tensor, "new_image feature"]) -> Float[Tensor, "new_image component"]:
    """New images in the coordinates of a decomposition of all images (`whole`); not of a layer reduced over images."""
    centred = features - layer.mean
    if layer.kernel and layer.products.dtype == features.dtype:
        return (centred @ layer.features.T) @ part.vectors
    return centred @ axes(layer, part)


def axes(
    layer: Layer,
    part: Fold,
    *,
    features: Float[Tensor, "image feature"] | None = None,
    weights: Float[Tensor, "component voxel"] | None = None,
) -> Float[Tensor, "feature column"]:
    """What turns centred features into coordinates on a decomposition of all images: rows = (features - mean) @ axes.

    With weights, into predictions: less work and memory where voxels are fewer than components. In the kernel form X'Q, where
    small components cancel: summed in the type of the decomposition. features: those that `prepare` was given, which a layer
    reduced over images does not keep (`InputError` without them).
    """
    if layer.reduction is not None and layer.reduction_of_images:
        if features is None:
            raise InputError("features: the axes of a reduced layer need the features that it was made of; none came")
        turned = layer.reduction @ (part.vectors if weights is None else part.vectors @ weights)
        summed = (turned.T @ features).T  # features.T @ turned takes 1.3 times as long
        return summed - torch.outer(layer.mean, turned.sum(0))
    found = _kernel_axes(layer, part) if layer.kernel else part.vectors
    if layer.reduction is not None:
        found = layer.reduction @ found
    return found if weights is None else found @ weights


def _kernel_axes(layer: Layer, part: Fold) -> Tensor:
    vectors = layer.vectors[:, -len(part.eigenvalues) :]
    total = vectors.new_zeros(layer.features.shape[1], vectors.shape[1])
    for rows in blocks_of(layer.n_images, ROWS_PER_BLOCK):
        total.addmm_(layer.features[rows].to(vectors.dtype).T, vectors[rows])
    return total.to(layer.features.dtype)


def share_products(part: Fold, alphas: Float[Tensor, " alpha"], *, kernel: bool, n_voxels: int) -> SharedProducts:
    """The maps that predictions of all alphas are combined from, by a singular value decomposition of 1 / (l + alpha).

    Components count by the size of the held-out images on them, times that of white responses; `BASIS_TOLERANCE` is given up.
    """
    tolerance = BASIS_TOLERANCE.get(part.rows.dtype, 0.0)
    tiny = torch.finfo(torch.float64).tiny
    damping = 1 / (part.eigenvalues.double() + alphas.double()[:, None])  # (alpha, component)
    size = part.rows.double().square().mean(0).sqrt() * (1 if kernel else part.eigenvalues.double().sqrt())
    scaled = damping * size
    left, singular, right = torch.linalg.svd(scaled, full_matrices=False)
    n_basis = max(1, int((singular > tolerance * singular[0]).sum()))
    basis = torch.where(size > 0, right[:n_basis] / size.clamp(min=tiny), 0).to(part.rows.dtype)
    maps = part.rows * basis[:, None]  # (basis, held_out, component)
    n_row, n_component, n_held_out = len(part.vectors), maps.shape[2], n_basis * maps.shape[1]
    on_moments = n_held_out * n_row * (1 + n_component / n_voxels) < n_component * (n_row + n_held_out)
    return SharedProducts(
        combine=(left[:, :n_basis] * singular[:n_basis]).to(part.rows.dtype),
        maps=maps @ part.vectors.T if on_moments else maps,
        on_moments=on_moments,
    )


def predictions(part: Fold, shared: SharedProducts, sums: Float[Tensor, "row voxel"]) -> Iterator[Tensor]:
    """Predicted responses to the held-out images, less the mean, for one alpha after the other; overwrite them at will."""
    operand = sums if shared.on_moments else coordinates(part, sums)
    parts = (shared.maps.flatten(0, 1) @ operand).view(len(shared.maps), -1)  # (basis, held-out image x voxel)
    for row in shared.combine:
        yield (row @ parts).view(-1, sums.shape[1])


def held_out_scores(
    part: Fold,
    shared: SharedProducts,
    sums: Float[Tensor, "row voxel"],
    mean: Float[Tensor, " voxel"],
    responses: Float[Tensor, "held_out voxel"],
) -> Float[Tensor, "alpha voxel"]:
    """Minus the mean squared error of the held-out images, for every alpha and voxel."""
    target = responses - mean
    return torch.stack([-prediction.sub_(target).square_().mean(0) for prediction in predictions(part, shared, sums)])


@dataclass(frozen=True, kw_only=True, eq=False)
class LeftOut:
    """What leave-one-out needs of a layer, float64: left singular vectors of all images' features, squared singular values.

    rest: what neither these nor the intercept explain of each image, (I - 11'/n - UU')_ii; None where they explain all.
    """

    eigenvalues: Float[Tensor, " component"]
    vectors: Float[Tensor, "image component"]
    rest: Float[Tensor, " image"] | None
    fit_intercept: bool


def left_out(layer: Layer) -> LeftOut:
    """The decomposition for leave-one-out: of the layer as it is, without a reduction to components."""
    n_images, features = layer.n_images, layer.features.double()
    if layer.fit_intercept:
        features = features - features.mean(0)  # what rounding left of it
    if layer.kernel:
        values, vectors = _centred_kernel(products_of(features, kernel=True, dtype=torch.float64), layer.fit_intercept)
    else:
        vectors, singular, _ = torch.linalg.svd(features, full_matrices=False)
        values = singular.square()
    rounding = torch.finfo(torch.float64)
    kept = values > rounding.eps * max(features.shape) * values.max().clamp(min=rounding.tiny)
    values, vectors = values[kept], vectors[:, kept]
    n_left = n_images - int(layer.fit_intercept) - len(values)
    rest = 1 - (1 / n_images if layer.fit_intercept else 0.0) - vectors.square().sum(1)
    return LeftOut(eigenvalues=values, vectors=vectors, rest=rest if n_left > 0 else None, fit_intercept=layer.fit_intercept)


def _centred_kernel(products: Tensor, fit_intercept: bool) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of XX'; where it is centred, without the constant vector, which is moved away from small ones."""
    if not fit_intercept:
        return decomposed(products)
    shift = 2 * torch.linalg.matrix_norm(products, ord=1).clamp(min=torch.finfo(products.dtype).tiny)  # above all eigenvalues
    values, vectors = decomposed(products + shift / len(products))
    return values[:-1], vectors[:, :-1]


def leave_one_out_scores(
    part: LeftOut, responses: Float[Tensor, "image voxel"], alphas: Float[Tensor, " alpha"]
) -> Float[Tensor, "alpha voxel"]:
    """Minus the mean squared error of each image predicted from all others, for every alpha and voxel, float64.

    e_i = r_i / (1 - h_ii), r = y - yhat. Raises `DegenerateError` where an image fits itself (h_ii = 1).
    """
    target = responses.double()
    if part.fit_intercept:
        target = target - target.mean(0)
    projected = part.vectors.T @ target
    outside = 0.0 if part.rest is None else target - part.vectors @ projected
    scores = target.new_empty(len(alphas), target.shape[1])
    for number, alpha in enumerate(alphas.double()):
        damping = alpha / (part.eigenvalues + alpha)
        left = part.vectors.square() @ damping
        if part.rest is not None:
            left = left + part.rest
            if not bool((left > LEAST_LEFT).all()):
                raise DegenerateError(f"alpha {float(alpha):g}: an image fits itself and leave-one-out has no error; use folds")
        residual = part.vectors @ (damping[:, None] * projected) + outside
        scores[number] = -residual.div_(left[:, None]).square_().mean(0)
    return scores


def best_alpha(
    scores: Float[Tensor, "alpha voxel"], alphas: Float[Tensor, " alpha"]
) -> tuple[Int[Tensor, " voxel"], Float[Tensor, " voxel"]]:
    """Place of the best alpha of each voxel, and its score; of equal scores the larger alpha."""
    slope = TIE * torch.log(alphas.double())
    best, place = (scores.double() + slope[:, None]).max(0)
    return place, best - slope[place]


def search(
    layer: Layer,
    folds: Sequence[tuple[Tensor, Tensor]] | None,
    alphas: Float[Tensor, " alpha"],
    read: ReadBlock,
    blocks: Sequence[slice],
    *,
    n_components: int | None = None,
    n_voxels: int | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Scores (alpha, voxel), block by block: minus the squared error, averaged within and then over folds.

    folds: (training images, held-out images) of each; None for leave-one-out. read: the responses of a block of voxels, all
    images. The decompositions are made once, before the first block. n_voxels: of all blocks, where only some are asked for.
    """
    if folds is None:
        yield from _search_left_out(layer, alphas, read, blocks, n_components)
        return
    n_voxels = n_voxels or sum(block.stop - block.start for block in blocks)
    parts = [fold(layer, train, held_out, n_components=n_components) for train, held_out in folds]
    shared = [share_products(part, alphas, kernel=layer.kernel, n_voxels=n_voxels) for part in parts]
    for block in blocks:
        responses = read(block)
        responses = responses - responses.mean(0) if layer.fit_intercept else responses
        cross, apart = _cross_products(layer, parts, responses)
        total = responses.new_zeros(len(alphas), responses.shape[1], dtype=torch.float64)
        for part, products, own in zip(parts, shared, apart, strict=True):
            sums, mean = moments(layer, part, responses, cross=cross, held_out_cross=own)
            total += held_out_scores(part, products, sums, mean, responses[part.held_out])
        yield block, (total / len(parts)).to(responses.dtype)


def bytes_of(
    n_images: int, n_features: int, *, n_folds: int, n_alphas: int, n_components: int | None = None
) -> tuple[float, float]:
    """Memory that a layer and its `search` need, in float32: bytes at once, and bytes for each voxel of a block.

    Features twice (as given, and centred), the decomposition in float64 with its workspace, and per fold vectors, held-out rows
    and the shared maps. A voxel: its responses as read, centred, and copied for a fold; X'Y per fold; predictions per alpha.
    """
    smaller, held_out = min(n_images, n_features), n_images / n_folds
    components = smaller if n_components is None else min(smaller, n_components)
    kernel = n_features > n_images
    at_once = 8.0 * n_images * n_features + 48.0 * smaller**2
    at_once += 4.0 * n_folds * (smaller * components + held_out * components + n_alphas * held_out * smaller)
    sums = 2 * n_images if kernel else (2 * n_folds + 3) * n_features
    return at_once, 4.0 * (3 * n_images + sums + (n_alphas + 4) * held_out) + 32.0 * n_alphas


def _search_left_out(
    layer: Layer, alphas: Tensor, read: ReadBlock, blocks: Sequence[slice], n_components: int | None
) -> Iterator[tuple[slice, Tensor]]:
    if n_components is not None:
        raise InputError(
            f"n_components: leave-one-out in closed form keeps all components, {n_components} came: they would be those of the "
            "left-out image too; give folds"
        )
    part = left_out(layer)
    for block in blocks:
        responses = read(block)
        yield block, leave_one_out_scores(part, responses, alphas).to(responses.dtype)


def _cross_products(layer: Layer, parts: Sequence[Fold], responses: Tensor) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """X'Y of the images that each fold holds out, and of all: their sum, where every image is held out once."""
    if layer.kernel or sorted(torch.cat([part.held_out for part in parts]).tolist()) != list(range(layer.n_images)):
        return None, [None] * len(parts)
    apart = [layer.features[part.held_out].T @ responses[part.held_out] for part in parts]
    return torch.stack(apart).sum(0), apart
