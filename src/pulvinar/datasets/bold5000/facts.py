"""Where BOLD5000 comes from; its subjects, sessions and runs."""

from pulvinar.data.dataset import Facts, PublishedFile

SESSIONS = {"CSI1": 15, "CSI2": 15, "CSI3": 15, "CSI4": 9}
LONG_SESSIONS = {  # of 10 runs; all others have 9
    "CSI1": (1, 2, 3, 5, 7, 10, 15),
    "CSI2": (1, 3, 4, 5, 11, 12, 14),
    "CSI3": (1, 3, 5, 6, 7, 11, 15),
    "CSI4": (1, 4, 9),
}
TRIALS_PER_RUN = 37
N_REPEATED = 113  # pictures that were to be seen four times by everybody
BETAS = "TYPED-FITHRF-GLMDENOISE-RR"
ROIS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
MISSPELT = {"LHLO": "LHLOC", "RHLO": "RHLOC", "RHRRSC": "RHRSC"}  # names of mask files in ds001499

FACTS = Facts(
    citation=(
        "Chang, Pyles, Marcus, Gupta, Tarr & Aminoff (2019), BOLD5000, Scientific Data 6:49; release 2.0: Prince, Charest, "
        "Kurzawski, Pyles, Tarr & Kay (2022), GLMsingle, eLife 11:e77599"
    ),
    url="https://openneuro.org/datasets/ds001499",
    licence="raw data CC0 (ds001499); the licence of the betas of release 2.0 is on its page, and was not established here",
    terms="pictures are those of COCO, ImageNet and SUN, whose own terms hold",
    subjects=tuple(SESSIONS),
    space="functional volume of each subject, 2 mm",
    files=(
        PublishedFile(path="{subject}_GLMbetas-" + BETAS + "_ses-{session}.nii.gz", source="figshare:14456124"),
        PublishedFile(path="{subject}_brainmask.nii.gz", source="figshare:14456124"),
        PublishedFile(path="{subject}_imgnames.txt", source="figshare:14456124"),
        PublishedFile(
            path="derivatives/spm/sub-{subject}/sub-{subject}_mask-*.nii.gz",
            source="s3://openneuro.org/ds001499",
            optional=True,
        ),
        PublishedFile(path="BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli/", images=True),
    ),
    by_hand="the pictures, BOLD5000_Stimuli.zip of the owners' page (bold5000-dataset.github.io), to be unpacked in the folder",
)


def runs_of(subject: str, session: int) -> int:
    """How many runs of 37 trials a session has."""
    return 10 if session in LONG_SESSIONS[subject] else 9


def trials_of(subject: str, session: int) -> int:
    """How many trials a session has: 370 or 333."""
    return TRIALS_PER_RUN * runs_of(subject, session)
