"""Where MOSAIC comes from: eight data sets on one cortex, and how it names them."""

from pulvinar.data.dataset import Facts, PublishedFile

SETS = {  # short name -> folder, number of people
    "NSD": ("NaturalScenesDataset", 8),
    "BOLD5000": ("BOLD5000", 4),
    "GOD": ("GenericObjectDecoding", 5),
    "deeprecon": ("deeprecon", 3),
    "THINGS": ("THINGS", 3),
    "NOD": ("NaturalObjectDataset", 30),
    "BMD": ("BOLDMomentsDataset", 10),
    "HAD": ("HumanActionsDataset", 30),
}
VIDEOS = ("BMD", "HAD")  # their stimuli are no pictures
BETAS = "fMRIPrepv23_2_0/task_fMRI/betas/GLMsinglev1_2"
N_GREYORDINATES, N_CORTEX, N_LEFT = 91_282, 59_412, 29_696  # fsLR 91k: left cortex, right cortex, subcortex
VISUAL = (  # areas of HCP-MMP's groups 1 to 5: primary, early, dorsal, ventral, and the MT+ complex
    *("V1", "V2", "V3", "V4", "V3A", "V3B", "V6", "V6A", "V7", "IPS1", "V8", "VVC", "PIT", "FFC", "VMV1", "VMV2", "VMV3"),
    *("V3CD", "LO1", "LO2", "LO3", "V4t", "FST", "MT", "MST", "PH"),
)

FACTS = Facts(
    citation="MOSAIC: eight fMRI datasets, one preprocessing; cite it and each data set as the owners' page says",
    url="https://github.com/murtylab/mosaic-dataset",
    licence="of the aggregate: not established here; the terms of each data set hold, NSD's agreement too",
    terms="pictures are not hosted; they come from each data set, under its terms",
    subjects=tuple(f"sub-{number:02d}_{short}" for short, (_, people) in SETS.items() for number in range(1, people + 1)),
    space="fsLR 32k, 91,282 greyordinates, of which the 59,412 of cortex are read",
    files=(
        PublishedFile(path=f"{BETAS}/*/{{subject}}.hdf5", source="s3://mosaicfmri"),
        PublishedFile(path="train_naturalistic.json"),
        PublishedFile(path="test_naturalistic.json"),
        PublishedFile(path="test_artificial.json"),
    ),
    agreement=(
        "the betas are of eight data sets, whose terms hold for each: of NSD an agreement with its authors, and whatever the "
        "others ask for on their pages"
    ),
    by_hand=(
        "the split (train_naturalistic.json, test_naturalistic.json, test_artificial.json), with the owners' code: its place "
        "in the bucket was not established; pictures, from each data set"
    ),
)
