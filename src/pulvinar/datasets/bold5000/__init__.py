"""BOLD5000: 4 people see 4,916 pictures of COCO, ImageNet and SUN; GLMsingle betas of single trials (release 2.0).

    experiment = load("BOLD5000")                                  # the folder with CSI1_GLMbetas-..._ses-01.nii.gz
    experiment = load("BOLD5000?subjects=1,2&sessions=5&voxels=PPA")

Line i of `CSIx_imgnames.txt` is volume i of all sessions one after the other. Sessions have 9 or 10 runs of 37 trials, and each
subject's are others. The test pictures are the 113 that were shown again and again. Betas are percent signal change, not
z-scored; the header has no position, so masks are joined by their place in the array.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.bold5000.facts import FACTS
from pulvinar.datasets.bold5000.reader import Options, load
from pulvinar.datasets.bold5000.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load"]

DATASET = Dataset(
    name="bold5000",
    facts=FACTS,
    load=load,
    splits=Splits(owners="the 113 repeated pictures are the test, by custom"),
    generated=Generated,
    generate=generator(write_world, target="CSI1"),
)
