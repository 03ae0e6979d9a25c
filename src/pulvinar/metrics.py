"""Scores: arrays in, numbers out. A name is imported when it is asked for; each says its formula, range and source.

Arrays are numpy's, or what numpy makes arrays of: lists, tables, tensors.

Encoding: correlations, explained_variance, unique_variance, algonauts_2023, permutation_test, false_discovery_rate.
Noise ceilings: signal_to_noise, ceiling_r2, ceiling_from_repeats. Retrieval: cosine_similarities, retrieval_scores.
Pictures: pixel_correlation, structural_similarity, two_way_identification (of a correlation_table). Selections: overlap,
stability. Information: info_nce, information_bound. Intervals: wilson_interval, percentile_interval, permutation_null,
paired_difference. Representational similarity has its own module, `pulvinar.rsa`.
"""

from typing import TYPE_CHECKING, Any

from pulvinar.core.lazy import lazy

if TYPE_CHECKING:
    from pulvinar.scores.encoding import (
        algonauts_2023,
        ceiling_from_repeats,
        correlations,
        explained_variance,
        false_discovery_rate,
        permutation_test,
        unique_variance,
    )
    from pulvinar.scores.information import info_nce, information_bound
    from pulvinar.scores.noise_ceiling import ceiling_r2, signal_to_noise
    from pulvinar.scores.overlap import overlap, stability
    from pulvinar.scores.reconstruction import (
        correlation_table,
        pixel_correlation,
        structural_similarity,
        two_way_identification,
    )
    from pulvinar.scores.resampling import paired_difference, percentile_interval, permutation_null, wilson_interval
    from pulvinar.scores.retrieval import cosine_similarities, retrieval_scores

__all__ = [
    "algonauts_2023",
    "ceiling_from_repeats",
    "ceiling_r2",
    "correlation_table",
    "correlations",
    "cosine_similarities",
    "explained_variance",
    "false_discovery_rate",
    "info_nce",
    "information_bound",
    "overlap",
    "paired_difference",
    "percentile_interval",
    "permutation_null",
    "permutation_test",
    "pixel_correlation",
    "retrieval_scores",
    "signal_to_noise",
    "stability",
    "structural_similarity",
    "two_way_identification",
    "unique_variance",
    "wilson_interval",
]

_WHERE = {
    "encoding": "algonauts_2023 ceiling_from_repeats correlations explained_variance false_discovery_rate permutation_test "
    "unique_variance",
    "information": "info_nce information_bound",
    "noise_ceiling": "ceiling_r2 signal_to_noise",
    "overlap": "overlap stability",
    "reconstruction": "correlation_table pixel_correlation structural_similarity two_way_identification",
    "resampling": "paired_difference percentile_interval permutation_null wilson_interval",
    "retrieval": "cosine_similarities retrieval_scores",
}
_PLACES = {name: f"pulvinar.scores.{file}:{name}" for file, names in _WHERE.items() for name in names.split()}
_found, __dir__ = lazy(__name__, _PLACES)


def __getattr__(name: str) -> Any:
    function = _found(name)
    from pulvinar.scores.array_likes import takes_array_likes

    return takes_array_likes(function, __name__)
