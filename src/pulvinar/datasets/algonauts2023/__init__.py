"""Algonauts Project 2023: 8 people of the Natural Scenes Dataset, responses of cortical vertices to 73,000 pictures.

    experiment = load("algonauts_2023_challenge_data")             # the folder that holds subj01, subj02, ...
    experiment = load("algonauts_2023_challenge_data?subjects=1,2&test_share=0.15")

Each subject's `training_split` has pictures and responses of both hemispheres; `test_split` has pictures alone: their responses
are the challenge's. They are among the stimuli, in neither side of the split; the outer test images are a share of the training
pictures, the same for all subjects. A picture's id is its NSD number, so that one that two subjects saw is one stimulus.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.algonauts2023.facts import FACTS
from pulvinar.datasets.algonauts2023.reader import FSAVERAGE_VERTICES, Options, challenge_images, challenge_stimuli, load
from pulvinar.datasets.algonauts2023.submission import read_submission, score, write_submission
from pulvinar.datasets.algonauts2023.writer import MAPPINGS, Generated, write_world

__all__ = [
    "DATASET",
    "FSAVERAGE_VERTICES",
    "MAPPINGS",
    "Generated",
    "Options",
    "challenge_images",
    "challenge_stimuli",
    "load",
    "read_submission",
    "score",
    "write_submission",
]

DATASET = Dataset(
    name="algonauts2023",
    facts=FACTS,
    load=load,
    splits=Splits(),
    generated=Generated,
    generate=generator(write_world, target="subj01"),
)
