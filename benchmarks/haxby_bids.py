"""From a BIDS folder to a table, with labels alone: Haxby et al. 2001, subject 1, half a slice, blocks of eight categories.

    python benchmarks/haxby_bids.py haxby2001_sub1_dev.npz OUT [method ...]

Writes the runs as a BIDS study (OUT/haxby: events of whole blocks, the series as derivatives with their mask), reads it as
`bids:OUT/haxby?...`, and fits and evaluates each method with three estimates of a block's response. Three runs are held out in
turn; the table is the mean over the three.
"""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np

import pulvinar

FOLDS = ("1,2,3", "4,5,6", "7,8,9")
ESTIMATES = {
    "lss": "estimate=lss",
    "lss, others together": "estimate=lss&others=together",
    "lss, polynomial drift": "estimate=lss&drift=polynomial",
    "window 5 to 25 s": "estimate=window&window_from_s=5&window_to_s=25",
}


def write(path: str, root: Path) -> None:
    """The runs as a BIDS study."""
    with np.load(path, allow_pickle=False) as file:
        bold, mask, affine, step = file["bold"], file["mask"], file["affine"], float(file["tr_s"])
        names, target, run = file["label_names"], file["target"], file["run"]
    place = root / "derivatives/pymvpa/sub-01/func"
    place.mkdir(parents=True)
    (root / "sub-01/func").mkdir(parents=True)
    described = {"Name": "Haxby et al. 2001, subject 1, half a slice", "BIDSVersion": "1.9.0", "License": "CC BY-SA 3.0"}
    (root / "dataset_description.json").write_text(json.dumps(described))
    (root / "task-objectviewing_bold.json").write_text(json.dumps({"TaskName": "objectviewing", "RepetitionTime": step}))
    for number in range(9):
        stem, volumes = f"sub-01_task-objectviewing_run-{number + 1}", np.flatnonzero(run == number)
        image = nibabel.Nifti1Image(bold[..., volumes], affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((*image.header.get_zooms()[:3], step))
        nibabel.save(image, place / f"{stem}_desc-preproc_bold.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), place / f"{stem}_desc-brain_mask.nii.gz")
        own = target[volumes]
        parts = np.split(np.arange(len(own)), np.flatnonzero(np.diff(own)) + 1)
        rows = [f"{part[0] * step:g}\t{len(part) * step:g}\t{names[own[part[0]]]}" for part in parts if own[part[0]]]
        table = "\n".join(["onset\tduration\ttrial_type", *rows]) + "\n"
        (root / f"sub-01/func/{stem}_events.tsv").write_text(table)


def main(path: str, out: str, methods: list[str]) -> None:
    """Fit and evaluate every method on every fold with every estimate; print the mean over folds of each row's top-1."""
    root = Path(out) / "haxby"
    if not root.exists():
        write(path, root)
    for method in methods:
        for name, query in ESTIMATES.items():
            tables = []
            for number, held_out in enumerate(FOLDS):
                data = pulvinar.open_data(f"bids:{root}?{query}&test_runs={held_out}")
                folder = Path(out) / f"{method}-{list(ESTIMATES).index(name)}-{number}"
                run = pulvinar.fit(method, data, out=folder, pretrain=False, n_voxels=100, drop_bad_voxels=True, beside="usual")
                tables.append({row["name"]: row for row in run.evaluate(data=data).result["rows"]})
            for row_name, row in tables[0].items():
                found = [table[row_name]["brain_to_image_top1"] for table in tables]
                mean = "" if None in found else f"{np.mean(found):.3f}"
                print(f"{method:6} {name:22} {row_name:20} {row.get('n_voxels')!s:>5} {mean:>6}  {found}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] or ["anova"])
