"""Where THINGS-fMRI comes from; its tables and what stands in them."""

from pulvinar.data.dataset import Facts, PublishedFile

SUBJECTS = ("sub-01", "sub-02", "sub-03")
N_SESSIONS, RUNS_PER_SESSION, TRIALS_PER_RUN = 12, 10, 82
N_TRIALS = N_SESSIONS * RUNS_PER_SESSION * TRIALS_PER_RUN
N_TEST_REPEATS = 12
VISUAL = ("V1", "V2", "V3", "hV4", "VO1", "VO2", "LO1 (prf)", "LO2 (prf)", "TO1", "TO2", "V3b", "V3a")
SIDED = ("EBA", "FFA", "OFA", "STS", "PPA", "RSC", "TOS", "LOC")  # columns lEBA, rEBA, ...
WHOLE = "IT"
ATLAS = "glasser-"  # a column for each area, both hemispheres

_TABLES = "derivatives/ICA-betas/{subject}/voxel-metadata/{subject}_task-things_"

FACTS = Facts(
    citation=(
        "Hebart, Contier, Teichmann, Rockter, Zheng, Kidder, Corriveau, Vaziri-Pashkam & Baker (2023), THINGS-data, eLife "
        "12:e82580"
    ),
    url="https://openneuro.org/datasets/ds004192",
    licence="raw data CC0 (ds004192); the licence of the tables was not established here",
    terms="pictures by a password whose text is their licence; not to be redistributed",
    subjects=SUBJECTS,
    space="functional volume of each subject, voxels of the brain mask",
    files=(
        *(
            PublishedFile(path=_TABLES + name, source="s3://openneuro.org/ds004192")
            for name in ("voxel-wise-responses.h5", "stimulus-metadata.tsv", "voxel-metadata.tsv")
        ),
        PublishedFile(path="images/", images=True),
    ),
    by_hand=(
        "the pictures, from OSF jum2f with the password that is their licence; in place of OpenNeuro's copy of the tables, "
        "betas_csv.zip of figshare+ 10.25452/figshare.plus.20492835 (43 GB), to be unpacked in the folder"
    ),
)
