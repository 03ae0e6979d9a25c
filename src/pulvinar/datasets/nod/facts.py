"""Where the data come from."""

from pulvinar.data.dataset import Facts, PublishedFile

SOURCE = "s3://openneuro.org/ds004496"
_RESULTS = "derivatives/ciftify/{subject}/results"

FACTS = Facts(
    citation=(
        "Gong, Zhou, Dai, Wen, Liu & Zhen (2023), A large-scale fMRI dataset for the visual processing of naturalistic scenes"
    ),
    url="https://openneuro.org/datasets/ds004496",
    licence="CC0",
    terms="pictures are those of ImageNet, whose terms hold",
    subjects=tuple(f"sub-{number:02d}" for number in range(1, 31)),
    space="fsLR 32k, 59,412 vertices of the cortex",
    files=(
        PublishedFile(path=f"{_RESULTS}/ses-imagenet{{session}}_task-imagenet_run-*/*_beta.dscalar.nii", source=SOURCE),
        PublishedFile(path=f"{_RESULTS}/ses-imagenet{{session}}_task-imagenet_run-*/*_label.txt", source=SOURCE),
        PublishedFile(path=f"{_RESULTS}/ses-prf_task-prf/*_params.dscalar.nii", source=SOURCE, optional=True),
        PublishedFile(path="stimuli/imagenet/*/*", source=SOURCE, images=True),
    ),
    by_hand="an atlas of your own (HCP-MMP as .dlabel.nii, with option atlas)",
)
