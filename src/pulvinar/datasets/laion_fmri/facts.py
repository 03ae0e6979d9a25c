"""Where LAION-fMRI comes from, and how its files are named."""

from pathlib import Path

from pulvinar.data.dataset import Facts, PublishedFile

SUBJECTS = ("sub-01", "sub-03", "sub-05", "sub-06", "sub-07")
PARTICIPANT = {"sub-01": "p01", "sub-06": "p02", "sub-05": "p03", "sub-03": "p04", "sub-07": "p05"}  # in names of unique images
BETAS = Path("derivatives/glmsingle-tedana")
ROIS = Path("derivatives/rois")
ANATOMY = Path("derivatives/anatomical")
IMAGES = Path("stimuli/task-images_stimuli.h5")
METADATA = Path("stimuli/task-images_metadata.csv")
EMBEDDINGS = "stimuli/task-images_desc-{name}_embeddings.h5"
SPLITS = Path("splits")  # copied from the package laion-fmri, laion_fmri/splits/data
OOD = "shared_4rep_OOD_"  # how the names of the out-of-distribution images begin

BUCKET = "s3://laion-fmri@us-west-2"
_FUNC = "{subject}/ses-{session}/func/{subject}_ses-{session}_task-images"

FACTS = Facts(
    citation="LAION-fMRI, ViCCo group (2026); the wording of the citation is on the owners' page",
    url="https://github.com/ViCCo-Group/LAION-fMRI",
    licence="brain data, derivatives and metadata CC0; images under an agreement",
    terms=(
        "images: research only, no redistribution, no commercial use, no training of general-purpose AI models; by a form of "
        "the owners"
    ),
    subjects=SUBJECTS,
    sessions=tuple(range(1, 31)),  # 31 to 34 lie there too and are closed
    space="T1w volume of each subject, 1.8 mm",
    files=(
        PublishedFile(path=f"{BETAS}/{_FUNC}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz", source=BUCKET),
        PublishedFile(path=f"{BETAS}/{_FUNC}_desc-SingletrialBetas_trials.tsv", source=BUCKET),
        PublishedFile(
            path=f"{BETAS}/{{subject}}/{{subject}}_task-images_space-T1w_*_statmap.nii.gz", source=BUCKET, optional=True
        ),
        PublishedFile(path=f"{ANATOMY}/{{subject}}/ses-PrismaAnat/anat/*_res-1pt8_desc-brain_mask.nii.gz", source=BUCKET),
        PublishedFile(
            path=f"{ROIS}/{{subject}}/*/{{subject}}_space-T1w_res-1pt8_label-*_mask.nii.gz", source=BUCKET, optional=True
        ),
        PublishedFile(path=str(METADATA), source=BUCKET, optional=True),
        PublishedFile(path=EMBEDDINGS.format(name="*"), source=BUCKET, optional=True),
        PublishedFile(path=str(IMAGES), images=True),
    ),
    by_hand=(
        "the images, stimuli/task-images_stimuli.h5, by a form of the owners (their package laion-fmri fetches them then); "
        "the splits, from the folder laion_fmri/splits/data of that package into splits/"
    ),
)


def session_stem(subject: str, session: int) -> str:
    """`sub-01/ses-07/func/sub-01_ses-07_task-images`, below the folder of betas."""
    return f"{subject}/ses-{session:02d}/func/{subject}_ses-{session:02d}_task-images"


def betas_path(root: Path, subject: str, session: int) -> Path:
    """The single-trial betas of a session."""
    stem = session_stem(subject, session)
    return root / BETAS / f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"


def trials_path(root: Path, subject: str, session: int) -> Path:
    """The table of a session's trials; its name has no space."""
    return root / BETAS / f"{session_stem(subject, session)}_desc-SingletrialBetas_trials.tsv"


def map_path(root: Path, subject: str, description: str) -> Path:
    """A map over all sessions of a subject, such as desc-Noiseceiling4rep or stat-rsquare_desc-R2mean."""
    return root / BETAS / subject / f"{subject}_task-images_space-T1w_{description}_statmap.nii.gz"
