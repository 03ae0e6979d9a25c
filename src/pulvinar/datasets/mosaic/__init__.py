"""MOSAIC: eight data sets of images and videos on one cortex (fsLR 91k), 93 people; betas of single trials in HDF5.

    experiment = load("mosaic?subjects=sub-01_NSD,sub-02_GOD&atlas=HCP-MMP.dlabel.nii&voxels=annotated")

A trial is a dataset whose name says subject, picture, phase and repeat. The test is that of MOSAIC's own split, which is
free of near-duplicates; what it removed is in the files and on neither side. BMD and HAD show videos and are left out.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.mosaic.facts import FACTS
from pulvinar.datasets.mosaic.reader import Options, load
from pulvinar.datasets.mosaic.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load"]

DATASET = Dataset(
    name="mosaic",
    facts=FACTS,
    load=load,
    splits=Splits(
        owners="mosaic, without training images of a DreamSim cosine above .8196 to a test image",
        named={
            "mosaic": "the owners'",
            "phase": "the sides of each data set",
            "ood": "the owners' training, artificial stimuli for the test",
        },
    ),
    generated=Generated,
    generate=generator(write_world, target="sub-01_NSD"),
)
