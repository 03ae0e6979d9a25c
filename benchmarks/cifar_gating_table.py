"""The table of a sweep of gated networks: accuracy at the share reached, intervals over seeds and images, paired differences.

    python benchmarks/cifar_gating_table.py runs/cifar_gating [--reference "dual_30_%"]

Writes table.csv and the figure under artifacts/ of the folder, prints the table, and the published rows beside it.
"""

import argparse
import math
from pathlib import Path

from pulvinar.evaluation.published_gating import published
from pulvinar.report.gating_figures import figure
from pulvinar.report.gating_runs import PooledRow, compare, find_runs, pool, table
from pulvinar.report.tables import csv_text
from pulvinar.storage import write_text


def line(row: PooledRow, reference: PooledRow | None) -> str:
    share = "" if math.isnan(row.mac_share) else f"{100 * row.mac_share:.2f} %"
    cells = [f"{row.group:22} {row.branch:14} n={len(row.seeds)} {share:>8}"]
    for kind in ("knn", "linear"):
        low, high = row.interval(kind)
        cells.append(f"{100 * row.score(kind):5.1f} [{100 * low:4.1f}, {100 * high:4.1f}]")
        found = None if reference is None or row is reference else compare(row, reference, kind)
        text = "" if found is None else f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        cells.append(f"{text:21}")
    return "  ".join(cells)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--reference", help="group whose gated row the others are compared with (default: by budget, dual)")
    given = arguments.parse_args()
    rows = pool(find_runs(given.folder))
    gated = {row.group: row for row in rows if row.branch == "gated"}
    print(f"{'':48}1-NN {'':14} minus reference        linear {'':12} minus reference")
    for row in rows:
        own = gated.get(given.reference) if given.reference else gated.get(row.group)
        print(line(row, own))
    write_text(given.folder / "artifacts" / "table.csv", csv_text(table(rows, reference=gated.get(given.reference or ""))))
    print(f"figure: {figure(given.folder)['accuracy']}.png")
    print("\nPublished, CIFAR-10, 50,000 images, full width, 500 epochs (linear):")
    for row in published("dual 1"):
        if row.data == "CIFAR-10":
            scores = [f"{name} {100 * value:.2f}" for name, value in (("dense", row.dense), ("gated", row.gated)) if value]
            share = "" if row.mac_share is None else f", MAC share {100 * row.mac_share:.1f} %"
            print(
                f"  {row.method} {'' if row.budget is None else f'asked {100 * row.budget:.0f} %'}: {', '.join(scores)}{share}"
            )


if __name__ == "__main__":
    main()
