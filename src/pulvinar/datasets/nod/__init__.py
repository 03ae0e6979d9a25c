"""Natural Object Dataset (OpenNeuro ds004496, CC0): 30 people see 57,120 pictures of ImageNet, once each; cortical vertices.

    experiment = load("ds004496?subjects=1,2&atlas=HCP-MMP.32k_fs_LR.dlabel.nii")

Read are the responses of `derivatives/ciftify/sub-XX/results/ses-imagenetKK_task-imagenet_run-R/` (a `*_beta.dscalar.nii` with
one row per trial, and a `*_label.txt` with their pictures), the population receptive fields of
`ses-prf_task-prf/*_params.dscalar.nii` (rows angle, eccentricity, size, R2; eccentricity and size in pixels: times 16/200 for
degrees), and pictures in `stimuli/imagenet`. The HCP-MMP atlas is your own .dlabel.nii: it cannot be passed on.

With an atlas and receptive fields, the vertices are the 50 of largest R2 in each of V1 to V4 of each hemisphere (as the
contrastive-encoding paper takes them); with an atlas alone, all of V1 to V4; with neither, the whole cortex without ROIs.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.nod.facts import FACTS
from pulvinar.datasets.nod.reader import Options, load
from pulvinar.datasets.nod.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load"]

DATASET = Dataset(
    name="nod",
    facts=FACTS,
    load=load,
    splits=Splits(),
    generated=Generated,
    generate=generator(write_world, target="sub-01"),
)
