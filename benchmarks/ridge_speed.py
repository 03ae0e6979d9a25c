"""Speed, agreement and memory of ridge with alpha per voxel beside himalaya and scikit-learn, each in a process of its own.

    python benchmarks/ridge_speed.py                 # one ridge: n 2500 p 1000 and n 1000 p 2500, 3,000 voxels
    python benchmarks/ridge_speed.py --search        # layer-and-alpha search, scaled down (n 1,000, 3 layers, 800 voxels)
    python benchmarks/ridge_speed.py --search --full # n 4,000, 8 layers of AlexNet's sizes, 5,000 voxels, 9 alphas, 5 folds

Seconds are medians of wall time; CPU seconds stand beside them, because they hold on a busy machine too. The search is compared
with scikit-learn's PCA and a Ridge for every alpha, layer by layer and fold by fold, as in the paper's pipeline.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np

ALPHAS = np.logspace(-1, 7, 9)
ALEXNET = (64 * 27 * 27, 192 * 13 * 13, 384 * 13 * 13, 256 * 13 * 13, 256 * 6 * 6, 4096, 4096, 1000)


def problem(n, p, v, seed=77):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, p), dtype=np.float32)
    weights = rng.standard_normal((p, v), dtype=np.float32) * (rng.random(v) < 0.5)
    responses = features @ weights / np.float32(p**0.5) + 2 * rng.standard_normal((n, v), dtype=np.float32)
    return features, responses, rng.standard_normal((400, p), dtype=np.float32)


def make(name):
    if name == "pulvinar":
        from pulvinar.estimators import RidgeEncoder

        return RidgeEncoder(ALPHAS, cv=5, fit_intercept=False)
    if name == "himalaya RidgeCV":
        from himalaya.ridge import RidgeCV

        return RidgeCV(alphas=ALPHAS, cv=5)
    if name == "himalaya KernelRidgeCV":
        from himalaya.kernel_ridge import KernelRidgeCV

        return KernelRidgeCV(alphas=ALPHAS, kernel="linear", cv=5)
    if name == "pulvinar, leave-one-out":
        from pulvinar.estimators import RidgeEncoder

        return RidgeEncoder(ALPHAS, cv="loo", fit_intercept=False)
    from sklearn.linear_model import RidgeCV

    return RidgeCV(ALPHAS, alpha_per_target=True, fit_intercept=False)


def one_ridge(name, n, p, v, repeats):
    import warnings

    warnings.simplefilter("ignore")
    features, responses, new = problem(n, p, v)
    make(name).fit(features[:100], responses[:100, :10])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        predicted = np.asarray(make(name).fit(features, responses).predict(new))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return float(np.median(walls)), float(np.median(cpus)), grown, predicted[:, :200]


def layered(n, sizes, v, seed=5):
    """Layers with decaying spectra, 400 test images more; voxels follow one layer each."""
    rng = np.random.default_rng(seed)
    rank = 600
    layers = []
    for size in sizes:
        spectrum = np.arange(1, rank + 1, dtype=np.float32) ** -0.7
        scores = rng.standard_normal((n + 400, rank), dtype=np.float32) * spectrum
        axes = rng.standard_normal((rank, size), dtype=np.float32)
        layers.append((scores @ axes + 0.3 * rng.standard_normal((n + 400, size), dtype=np.float32), scores))
    driver = rng.integers(0, len(sizes), v)
    responses = np.empty((n + 400, v), np.float32)
    for number, (_, scores) in enumerate(layers):
        own = np.flatnonzero(driver == number)
        signal = scores[:, :100] @ rng.standard_normal((100, len(own)), dtype=np.float32)
        responses[:, own] = signal / signal.std(0) + 1.5 * rng.standard_normal((n + 400, len(own)), dtype=np.float32)
    return [values for values, _ in layers], responses


def search(name, n, sizes, v, n_components):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    from pulvinar.estimators import RidgeEncoder

    layers, responses = layered(n, sizes, v)
    train, test = slice(0, n), slice(n, None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    if name == "pulvinar":
        encoder = RidgeEncoder(ALPHAS, cv=5, n_components=n_components)
        predicted = encoder.fit([values[train] for values in layers], responses[train]).predict(
            [values[test] for values in layers]
        )
    else:
        best = np.full(v, -np.inf)
        predicted = np.empty((400, v), np.float32)
        for values in layers:
            scores = np.zeros((len(ALPHAS), v))
            for rows, held_out in KFold(5).split(values[train]):
                pca = PCA(n_components, random_state=0).fit(values[rows])
                inside, outside = pca.transform(values[rows]), pca.transform(values[held_out])
                for number, alpha in enumerate(ALPHAS):
                    error = responses[held_out] - Ridge(alpha).fit(inside, responses[rows]).predict(outside)
                    scores[number] -= (error**2).mean(0)
            pca = PCA(n_components, random_state=0).fit(values[train])
            inside, outside = pca.transform(values[train]), pca.transform(values[test])
            choice = scores.argmax(0)
            for number in np.unique(choice):
                own = np.flatnonzero((choice == number) & (scores.max(0) > best))
                if len(own):
                    predicted[:, own] = Ridge(ALPHAS[number]).fit(inside, responses[train][:, own]).predict(outside)
            best = np.maximum(best, scores.max(0))
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    z = [(values - values.mean(0)) / (values.std(0) + 1e-9) for values in (predicted, responses[test])]
    return *seconds, grown, float((z[0] * z[1]).mean())


def isolated(function, *arguments):
    """The result of a call in a fresh process: peak memory is of this call alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def compare_ridges(repeats):
    for n, p, v in ((2500, 1000, 3000), (1000, 2500, 3000)):
        print(f"n {n}, p {p}, {v} voxels, {len(ALPHAS)} alphas, 5 folds")
        ours = isolated(one_ridge, "pulvinar", n, p, v, repeats)
        print(f"  {'pulvinar':<26}{ours[0]:7.2f} s  {ours[1]:7.2f} CPU s  {ours[2]:6.0f} MB")
        for name in ("himalaya RidgeCV", "himalaya KernelRidgeCV", "scikit-learn RidgeCV", "pulvinar, leave-one-out"):
            wall, cpu, grown, predicted = isolated(one_ridge, name, n, p, v, repeats)
            apart = np.median(np.abs(predicted - ours[3])) / ours[3].std()
            ratio = f"{wall / ours[0]:5.1f} x ours ({cpu / ours[1]:.1f} x CPU)"
            print(f"  {name:<26}{wall:7.2f} s  {cpu:7.2f} CPU s  {grown:6.0f} MB  {ratio}, median difference {apart:.1e} s.d.")


def compare_searches(full):
    n, v, n_components = (4000, 5000, 1000) if full else (1000, 800, 300)
    sizes = ALEXNET if full else (9216, 4096, 1000)
    print(
        f"layer and alpha search: n {n}, layers {sizes}, {v} voxels, {len(ALPHAS)} alphas, 5 folds, {n_components} components"
    )
    found = {name: isolated(search, name, n, sizes, v, n_components) for name in ("pulvinar", "PCA and Ridge per alpha")}
    for name, (wall, cpu, grown, r) in found.items():
        print(f"  {name:<26}{wall:8.1f} s  {cpu:8.1f} CPU s  {grown:7.0f} MB  r on 400 test images {r:.4f}")
    ours, theirs = found.values()
    print(f"  {theirs[0] / ours[0]:.1f} x ours ({theirs[1] / ours[1]:.1f} x CPU)")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--search", action="store_true", help="the search over layers instead of one ridge")
    arguments.add_argument("--full", action="store_true", help="with --search: full size (hours for scikit-learn on two cores)")
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    if given.search:
        compare_searches(given.full)
    else:
        compare_ridges(given.repeats)
