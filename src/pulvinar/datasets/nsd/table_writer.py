"""Tables of a planted world in the form of the Natural Scenes Dataset, as its users' own code indexes them.

- `nsd_expdesign.mat`: masterordering (1, 30000), subjectim (8, 10000), sharedix (1, 1000); whole numbers, counted from 1.
- `nsd_stim_info_merged.csv`: a row for each of the 73,000 images, in their order, with the columns of NSD's own. The trials of
  an image (subjectS_rep0 to 2) are counted from 1 over all sessions; 0 is none.
- `ppdata/subjAA/behav/responses.tsv`: a row for each trial of the sessions written. Nobody lay in a scanner: answers are drawn
  (right in 85 % of trials, reaction times around 800 ms), only old and new are true of the design.
- `NAME.mgz.ctab` and `templates/NAME.ctab`: number and name of each label, one blank between. NSD's users look for them in the
  subject's folder, in fsaverage's, and among the templates.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pulvinar.datasets.nsd.files import FIRST_INDEX, N_IMAGES, N_SHARED, N_SUBJECTS, TRIALS_PER_SESSION, runs_of_session

N_REPEATS = 3
RIGHT_SHARE, MEDIAN_RT_MS, RT_SPREAD = 0.85, 800.0, 0.3  # planted; spread of the log
DAYS_BETWEEN_SESSIONS, TRIAL_S, DAY_S = 7, 4.0, 86_400
INFO_COLUMNS = ("cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000")
RESPONSE_COLUMNS = (
    *("SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "TIME", "ISOLD", "ISCORRECT", "RT", "CHANGEMIND"),
    *("MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT", "ISCORRECTCURRENT", "TOTAL1", "TOTAL2", "BUTTON", "MISSINGDATA"),
)


def write_design(folder: Path, order: np.ndarray, images: np.ndarray) -> None:
    """`nsd_expdesign.mat` from order (trial,) of columns and images (subject, column), both counted from 0."""
    import scipy.io

    tables = {"masterordering": order[None], "subjectim": images, "sharedix": images[:1, :N_SHARED]}
    types = {"masterordering": np.uint16, "subjectim": np.int32, "sharedix": np.int32}
    place = _experiment(folder) / "nsd_expdesign.mat"
    scipy.io.savemat(place, {name: (values + FIRST_INDEX).astype(types[name]) for name, values in tables.items()})


def write_image_information(folder: Path, order: np.ndarray, images: np.ndarray, photographs: Mapping[int, int]) -> None:
    """`nsd_stim_info_merged.csv`. photographs: row of the stimulus file -> number of the picture it was cut from."""
    trials = _trials_of_columns(order)
    seen = np.zeros((N_IMAGES, N_SUBJECTS), np.int64)
    repeats = np.zeros((N_IMAGES, N_SUBJECTS, N_REPEATS), np.int64)
    for subject in range(N_SUBJECTS):
        seen[images[subject], subject] = 1
        repeats[images[subject], subject] = trials
    shared = np.isin(np.arange(N_IMAGES), images[0, :N_SHARED])
    subjects = [f"subject{number}" for number in range(1, N_SUBJECTS + 1)]
    header = ["", *INFO_COLUMNS, *subjects, *(f"{name}_rep{number}" for name in subjects for number in range(N_REPEATS))]
    with (_experiment(folder) / "nsd_stim_info_merged.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for row in range(N_IMAGES):
            photograph = photographs.get(row, N_IMAGES + row)
            facts = [row, photograph, "train2017", "(0, 0, 0, 0)", 0.0, row, False, False, bool(shared[row])]
            table.writerow([*facts, *seen[row].tolist(), *repeats[row].ravel().tolist()])


def _experiment(folder: Path) -> Path:
    place = folder / "nsddata" / "experiments" / "nsd"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _trials_of_columns(order: np.ndarray) -> np.ndarray:
    """The first three trials of every column, from 1; 0 where it is shown less often: (column, repeat)."""
    trials = np.zeros((int(order.max()) + 1, N_REPEATS), np.int64)
    count = np.zeros(len(trials), np.int64)
    for trial, column in enumerate(order.tolist()):
        if count[column] < N_REPEATS:
            trials[column, count[column]] = trial + FIRST_INDEX
            count[column] += 1
    return trials


def write_behaviour(
    folder: Path, subject: int, columns: np.ndarray, images: np.ndarray, generator: np.random.Generator
) -> None:
    """`responses.tsv` of a subject (1 to 8). columns (trial,) of the sessions written, images (column,), both from 0."""
    place = folder / "nsddata" / "ppdata" / f"subj{subject:02d}" / "behav"
    place.mkdir(parents=True, exist_ok=True)
    runs = runs_of_session()
    place_in_run = np.concatenate([np.arange(np.count_nonzero(runs == run)) for run in np.unique(runs)]) + FIRST_INDEX
    right = generator.random(len(columns)) < RIGHT_SHARE
    reaction = MEDIAN_RT_MS * np.exp(RT_SPREAD * generator.standard_normal(len(columns)))
    shown: dict[int, list[int]] = {}
    lines = ["\t".join(RESPONSE_COLUMNS)]
    for trial, column in enumerate(columns.tolist()):
        session, within = divmod(trial, TRIALS_PER_SESSION)
        before = shown.setdefault(column, [])
        old, old_today = bool(before), bool(before) and before[-1] // TRIALS_PER_SESSION == session
        says_old = old == bool(right[trial])
        row = {
            "SUBJECT": subject,
            "SESSION": session + FIRST_INDEX,
            "RUN": runs[within],
            "TRIAL": place_in_run[within],
            "73KID": images[column] + FIRST_INDEX,
            "10KID": column + FIRST_INDEX,
            "TIME": f"{session * DAYS_BETWEEN_SESSIONS + 0.5 + within * TRIAL_S / DAY_S:.8f}",
            "ISOLD": int(old),
            "ISCORRECT": int(right[trial]),
            "RT": f"{reaction[trial]:.3f}",
            "CHANGEMIND": 0,
            "MEMORYRECENT": trial - before[-1] - 1 if old else "NaN",
            "MEMORYFIRST": trial - before[0] - 1 if old else "NaN",
            "ISOLDCURRENT": int(old_today),
            "ISCORRECTCURRENT": int(says_old == old_today),
            "TOTAL1": int(not says_old),
            "TOTAL2": int(says_old),
            "BUTTON": 2 if says_old else 1,
            "MISSINGDATA": 0,
        }
        before.append(trial)
        lines.append("\t".join(str(row[name]) for name in RESPONSE_COLUMNS))
    (place / "responses.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_label_tables(folder: Path, subject: str, names: Mapping[str, Sequence[str]]) -> None:
    """The colour tables of a subject's label files: file -> names of 0, 1, ..."""
    labels = folder / "nsddata" / "freesurfer"
    for file, known in names.items():
        content = "".join(f"{number} {name}\n" for number, name in enumerate(known))
        for place in (labels / subject / "label", labels / "fsaverage" / "label", folder / "nsddata" / "templates"):
            place.mkdir(parents=True, exist_ok=True)
            suffix = "ctab" if place.name == "templates" else "mgz.ctab"
            (place / f"{file}.{suffix}").write_text(content, encoding="utf-8")
