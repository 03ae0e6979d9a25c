"""Published accuracies of networks with channel gates, with their settings, to stand beside ours. All numbers in percent.

Sources: Krishna et al., "Dynamic channel selection in self-supervised learning" (table 1), and Krishna et al., "Unifying
synergies between self-supervised learning and dynamic computation" (tables 1, 2, 4, 5, 6; 3 is in methods/distillation.py).
A line is: data; method; budget asked; accuracy dense; accuracy gated (± s.d. of 5 runs where printed); multiply-adds saved.

As printed, also where the papers disagree with themselves: three savings of the first paper lie outside what its own FLOPs
allow (CIFAR-10 20 %, CIFAR-100 and ImageNet-100 30 %), and the STL-10 savings differ between tables 1 and 4. Dual and gated
networks of the same budget asked reach *different* shares: compare at the share reached.
"""

from dataclasses import dataclass
from typing import Any

from pulvinar.core.config import suggest
from pulvinar.core.errors import NotFoundError

DYNAMIC_TABLE_1 = """
CIFAR-10; SimSiam; -; 85.46; -; -
CIFAR-10; SimSiam gated; 0.1; -; 76.72; 90.55
CIFAR-10; SimSiam gated; 0.2; -; 78.78; 82.11
CIFAR-10; SimSiam gated; 0.3; -; 80.82; 71.41
CIFAR-10; SimSiam gated; 0.4; -; 81.35; 62.18
CIFAR-10; SimSiam gated; 0.5; -; 81.93; 53.15
CIFAR-10; SimSiam gated; 0.6; -; 82.96; 43.89
CIFAR-10; SimSiam gated; 0.7; -; 83.08; 34.76
CIFAR-100; SimSiam; -; 52.96; -; -
CIFAR-100; SimSiam gated; 0.1; -; 46.84; 90.21
CIFAR-100; SimSiam gated; 0.2; -; 49.50; 78.88
CIFAR-100; SimSiam gated; 0.3; -; 50.70; 71.01
CIFAR-100; SimSiam gated; 0.4; -; 52.05; 62.32
CIFAR-100; SimSiam gated; 0.5; -; 52.54; 53.67
CIFAR-100; SimSiam gated; 0.6; -; 53.18; 43.73
CIFAR-100; SimSiam gated; 0.7; -; 53.50; 33.69
ImageNet-100; SimSiam; -; 64.34; -; -
ImageNet-100; SimSiam gated; 0.3; -; 56.08; 70.43
ImageNet-100; SimSiam gated; 0.4; -; 57.86; 60.66
ImageNet-100; SimSiam gated; 0.5; -; 60.38; 51.55
"""

DUAL_TABLE_1 = """
CIFAR-10; VICReg; -; 91.11 ± 0.03; -; -
CIFAR-10; VICReg gated; 0.1; -; 87.75 ± 0.03; 85.92
CIFAR-10; VICReg dual; 0.1; 88.99 ± 0.04; 88.94 ± 0.06; 81.49
CIFAR-10; VICReg gated; 0.3; -; 89.49 ± 0.04; 69.27
CIFAR-10; VICReg dual; 0.3; 90.38 ± 0.04; 90.27 ± 0.03; 66.43
CIFAR-10; VICReg gated; 0.5; -; 90.70 ± 0.04; 51.62
CIFAR-10; VICReg dual; 0.5; 90.20 ± 0.02; 90.40 ± 0.06; 49.02
STL-10; VICReg; -; 86.15 ± 0.10; -; -
STL-10; VICReg gated; 0.1; -; 82.48 ± 0.15; 82.85
STL-10; VICReg dual; 0.1; 84.29 ± 0.21; 83.29 ± 0.05; 78.34
STL-10; VICReg gated; 0.3; -; 84.16 ± 0.11; 68.38
STL-10; VICReg dual; 0.3; 84.90 ± 0.05; 84.85 ± 0.04; 65.24
STL-10; VICReg gated; 0.5; -; 85.40 ± 0.20; 49.93
STL-10; VICReg dual; 0.5; 85.75 ± 0.02; 85.72 ± 0.02; 48.41
CIFAR-100; VICReg; -; 65.86 ± 0.10; -; -
CIFAR-100; VICReg gated; 0.1; -; 63.12 ± 0.09; 84.82
CIFAR-100; VICReg dual; 0.1; 65.21 ± 0.06; 64.31 ± 0.08; 81.71
CIFAR-100; VICReg gated; 0.3; -; 65.41 ± 0.09; 68.68
CIFAR-100; VICReg dual; 0.3; 65.90 ± 0.10; 65.64 ± 0.00; 66.83
CIFAR-100; VICReg gated; 0.5; -; 65.75 ± 0.12; 50.04
CIFAR-100; VICReg dual; 0.5; 66.41 ± 0.05; 66.40 ± 0.14; 49.06
ImageNet-100; VICReg; -; 77.74 ± 0.12; -; -
ImageNet-100; VICReg gated; 0.3; -; 74.04 ± 0.09; 67.95
ImageNet-100; VICReg dual; 0.3; 75.12 ± 0.07; 75.04 ± 0.10; 64.98
ImageNet-100; VICReg gated; 0.5; -; 75.83 ± 0.07; 50.11
ImageNet-100; VICReg dual; 0.5; 76.42 ± 0.26; 76.24 ± 0.12; 47.69
"""

DUAL_TABLE_2 = """
CIFAR-100 -> STL-10; VICReg; -; 70.37; -; -
CIFAR-100 -> STL-10; VICReg dual; 0.1; 64.69; 64.29; -
CIFAR-100 -> STL-10; VICReg dual; 0.3; 65.63; 65.93; -
CIFAR-100 -> STL-10; VICReg dual; 0.5; 66.52; 67.30; -
CIFAR-100 -> CIFAR-10; VICReg; -; 80.08; -; -
CIFAR-100 -> CIFAR-10; VICReg dual; 0.1; 80.56; 79.92; -
CIFAR-100 -> CIFAR-10; VICReg dual; 0.3; 80.23; 80.24; -
CIFAR-100 -> CIFAR-10; VICReg dual; 0.5; 80.16; 80.09; -
CIFAR-100 -> ImageNet-100; VICReg; -; 39.45; -; -
CIFAR-100 -> ImageNet-100; VICReg dual; 0.1; 35.88; 36.31; -
CIFAR-100 -> ImageNet-100; VICReg dual; 0.3; 38.49; 38.20; -
CIFAR-100 -> ImageNet-100; VICReg dual; 0.5; 39.41; 40.68; -
ImageNet-100 -> STL-10; VICReg; -; 72.80; -; -
ImageNet-100 -> STL-10; VICReg dual; 0.3; 65.86; 65.01; -
ImageNet-100 -> STL-10; VICReg dual; 0.5; 67.74; 67.15; -
ImageNet-100 -> CIFAR-10; VICReg; -; 55.12; -; -
ImageNet-100 -> CIFAR-10; VICReg dual; 0.3; 53.38; 49.41; -
ImageNet-100 -> CIFAR-10; VICReg dual; 0.5; 54.01; 49.80; -
ImageNet-100 -> CIFAR-100; VICReg; -; 31.42; -; -
ImageNet-100 -> CIFAR-100; VICReg dual; 0.3; 28.81; 25.55; -
ImageNet-100 -> CIFAR-100; VICReg dual; 0.5; 28.75; 25.14; -
"""

DUAL_TABLE_4 = """
CIFAR-100; Barlow Twins dual; 0.1; 53.64; 53.01; 80.60
CIFAR-100; VICReg dual; 0.1; 54.92; 54.66; 81.71
CIFAR-100; Barlow Twins dual; 0.3; 55.03; 54.89; 66.09
CIFAR-100; VICReg dual; 0.3; 56.34; 55.53; 66.83
CIFAR-100; Barlow Twins dual; 0.5; 55.63; 55.39; 47.64
CIFAR-100; VICReg dual; 0.5; 56.83; 57.25; 49.06
STL-10; Barlow Twins dual; 0.1; 73.45; 73.49; 76.74
STL-10; VICReg dual; 0.1; 76.61; 76.45; 78.27
STL-10; Barlow Twins dual; 0.3; 75.51; 76.02; 64.12
STL-10; VICReg dual; 0.3; 78.55; 78.80; 65.17
STL-10; Barlow Twins dual; 0.5; 76.99; 77.10; 48.32
STL-10; VICReg dual; 0.5; 79.69; 79.95; 48.39
"""

DUAL_TABLE_5 = """
CIFAR-100; VICReg dual, two encoders; 0.1; 53.85; 52.44; 85.77
CIFAR-100; VICReg dual, two encoders; 0.3; 55.65; 55.52; 70.07
CIFAR-100; VICReg dual, two encoders; 0.5; 55.64; 55.71; 52.60
STL-10; VICReg dual, two encoders; 0.1; 74.93; 74.89; 82.48
STL-10; VICReg dual, two encoders; 0.3; 76.83; 76.71; 69.26
STL-10; VICReg dual, two encoders; 0.5; 77.74; 78.00; 51.10
"""

DUAL_TABLE_6 = """
CIFAR-100; VICReg dual, no invariance; 0.1; 4.06; 6.31; 93.77
CIFAR-100; VICReg dual, no invariance; 0.3; 4.84; 4.89; 82.72
CIFAR-100; VICReg dual, no invariance; 0.5; 2.79; 4.15; 49.05
STL-10; VICReg dual, no invariance; 0.1; 11.79; 18.02; 90.71
STL-10; VICReg dual, no invariance; 0.3; 12.25; 17.89; 74.96
STL-10; VICReg dual, no invariance; 0.5; 12.81; 15.72; 51.91
"""

SETTINGS = {
    "dynamic 1": ("ResNet-18, SimSiam, 500 epochs", "knn"),
    "dual 1": ("ResNet-18, VICReg, 500 epochs, 5 runs", "linear"),
    "dual 2": ("ResNet-18, VICReg, 500 epochs, transfer, 5 runs", "linear"),
    "dual 4": ("ResNet-18, 500 epochs, features not normalised", "knn"),
    "dual 5": ("ResNet-18, VICReg, 500 epochs, features not normalised", "knn"),
    "dual 6": ("ResNet-18, VICReg, 500 epochs, features not normalised", "knn"),
}
TABLES = {
    "dynamic 1": DYNAMIC_TABLE_1,
    "dual 1": DUAL_TABLE_1,
    "dual 2": DUAL_TABLE_2,
    "dual 4": DUAL_TABLE_4,
    "dual 5": DUAL_TABLE_5,
    "dual 6": DUAL_TABLE_6,
}


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One line of a published table. metric: knn (1-NN, Euclidean) or linear. mac_share: 1 - saved, None if not printed."""

    table: str
    setting: str
    data: str
    method: str
    budget: float | None
    metric: str
    dense: float | None
    gated: float | None
    dense_sd: float | None
    gated_sd: float | None
    mac_share: float | None


def published(table: str) -> list[PublishedRow]:
    """The rows of 'dynamic 1', 'dual 1', 'dual 2', 'dual 4', 'dual 5' or 'dual 6', accuracies and shares in [0, 1]."""
    if table not in TABLES:
        raise NotFoundError(f"'{table}' is not a published table{suggest(table, list(TABLES))}")
    setting, metric = SETTINGS[table]
    rows = []
    for line in TABLES[table].strip().splitlines():
        data, method, budget, dense, gated, saved = (part.strip() for part in line.split(";"))
        of_dense, of_gated, share = _value(dense), _value(gated), _value(saved)[0]
        rows.append(
            PublishedRow(
                table=table,
                setting=setting,
                data=data,
                method=method,
                budget=None if budget == "-" else float(budget),
                metric=metric,
                dense=of_dense[0],
                gated=of_gated[0],
                dense_sd=of_dense[1],
                gated_sd=of_gated[1],
                mac_share=None if share is None else 1 - share,
            )
        )
    return rows


def report_rows(table: str, *methods: str) -> list[dict[str, Any]]:
    """Rows of a table, of these methods only if any are named, as a method's PUBLISHED: one entry for every printed number."""
    rows = [row for row in published(table) if not methods or row.method in methods]
    made = []
    for row in rows:
        asked = "" if row.budget is None else f", {100 * row.budget:.0f} % asked"
        numbers = {f"{row.metric}_dense": row.dense, f"{row.metric}_gated": row.gated, "mac_share": row.mac_share}
        shared = {"table": row.table, "setting": f"{row.data}{asked}; {row.setting}", "method": row.method}
        made += [
            {**shared, "metric": name, "value": round(100 * value, 2), "unit": "percent"}
            for name, value in numbers.items()
            if value is not None
        ]
    return made


def _value(text: str) -> tuple[float | None, float | None]:
    """'88.99 ± 0.04' as (.8899, .0004); a dash as nothing."""
    if text == "-":
        return None, None
    value, _, spread = text.partition("±")
    return float(value) / 100, float(spread) / 100 if spread else None
