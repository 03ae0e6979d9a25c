"""LAION-fMRI: 5 people see 25,052 images in 30 and more sessions at 7T; GLMsingle betas of single trials, BIDS derivatives.

    experiment = load("laion_fmri")                                # the folder with derivatives/ and stimuli/
    experiment = load("laion_fmri?subjects=1,3&voxels=laionventral&split=tau")

The label of a trial is the name of its image, suffix and all; the participant code in a unique image's name is not the
subject's number. The test is `ood` (its 371 out-of-distribution images) or a split of the owners' package. Ceilings are percent
in the files, shares of variance here. A voxel's number means nothing without the mask that it was counted in.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.laion_fmri.facts import FACTS
from pulvinar.datasets.laion_fmri.reader import Options, load
from pulvinar.datasets.laion_fmri.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load"]

DATASET = Dataset(
    name="laion_fmri",
    facts=FACTS,
    load=load,
    splits=Splits(
        owners="ood, the default here",
        named={"ood": "the 371 out-of-distribution images"},
        others="the name or file of a split of the owners' package (tau, cluster_k5_0, random_0, ...)",
    ),
    generated=Generated,
    generate=generator(write_world, target="sub-01"),
)
