"""Every score that a table or report shows, by where it stands, with its one definition: that of its column."""

from collections.abc import Sequence

from pulvinar.app import deploy_bench, deploy_pareto, encoding, reproduce_page, rsa
from pulvinar.decoding.pictures import reconstruction
from pulvinar.encoding import comparison, image_classification
from pulvinar.encoding import scores as encoding_scores
from pulvinar.gating import backbone_scores, sweep_page
from pulvinar.report import published_tables, tables
from pulvinar.rsa import evaluation
from pulvinar.scores.rdm_comparison import METHODS
from pulvinar.scores.table import Column

TABLES: dict[str, tuple[str, Sequence[Column]]] = {  # heading -> (where, columns)
    "Decoding": (
        "`pulvinar evaluate` of a decoding run",
        [*tables.SCORES, *tables.OTHER_GALLERIES, tables.DIFFERENCE, tables.VERDICT],
    ),
    "Pictures": (
        "`pulvinar evaluate` of a picture decoder, for each network that features are taken from",
        reconstruction.SCORES,
    ),
    "Encoding": ("`pulvinar evaluate` of an encoding run, per subject, ROI and hemisphere", encoding_scores.COLUMNS),
    "Tuned networks": ("the same of a run that tuned its network", encoding_scores.OF_TUNED),
    "Encoding over subjects": ("`pulvinar encoding compare`", comparison.SCORES),
    "Information": ("`pulvinar encoding information`", encoding.INFORMATION),
    "Classes": ("`pulvinar encoding classify`", image_classification.SCORES),
    "RSA": ("`pulvinar evaluate` of a run of learning_to_aggregate", evaluation.SCORES),
    "RSA, other similarities": ("the same with `comparisons=`", evaluation.similarities(METHODS)),
    "Comparing RDMs": ("`pulvinar rsa compare`", rsa.COMPARISON),
    "Algonauts 2019": ("`pulvinar rsa score`", rsa.CHALLENGE),
    "Ceilings of RDMs": ("`pulvinar rsa ceiling`", rsa.CEILING),
    "Self-supervised backbones": ("`pulvinar evaluate` of one, and pages of sweeps", backbone_scores.SCORES),
    "Sweeps": ("`pulvinar report` of a folder of self-supervised runs, beside these", sweep_page.OF_SWEEPS),
    "Speed": ("`pulvinar deploy bench`", deploy_bench.SCORES),
    **{
        f"Published numbers: {head}": ("pages of `pulvinar reproduce` and `pulvinar report`", reproduce_page.PUBLISHED[wing])
        for wing, head in {"decoding": "decoding", "encoding": "encoding", "rsa": "RSA", "gating": "backbones"}.items()
    },
    "Published numbers: where from": ("the same tables", published_tables.LEADS),
    "Settings of a reproduction": ("pages of `pulvinar reproduce` at scale small", reproduce_page.CHANGED),
    "Accuracy against time": ("`pulvinar deploy pareto`", [deploy_pareto.RATIO]),
}


def defined() -> dict[str, tuple[str, list[Column]]]:
    """Heading -> (where these scores stand, their columns that have a definition)."""
    return {head: (where, [column for column in columns if column.definition]) for head, (where, columns) in TABLES.items()}
