"""A study in BIDS as it is: events, series or fMRIPrep outputs; single-trial betas by nilearn, or GLMsingle's.

    experiment = load("mystudy")                                   # the folder with sub-XX and derivatives
    experiment = load("mystudy?space=T1w&estimate=lss&confounds=motion,wm_csf")

What is shown stands in the events: pictures (`stim_file`, in `stimuli/`), or labels alone (`trial_type`) for block designs.
What could be meant in two ways (two spaces, two tasks, rows of several types, events beyond the run's end) is refused, naming
what is there and the option that chooses. Betas are computed when they are asked for, run by run, and kept in the cache folder.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.datasets.bids.facts import FACTS
from pulvinar.datasets.bids.reader import load, look
from pulvinar.datasets.bids.settings import Options
from pulvinar.datasets.bids.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load", "look"]

DATASET = Dataset(
    name="bids",
    facts=FACTS,
    load=load,
    inspect=look,
    generated=Generated,
    generate=generator(write_world, target="sub-01"),
)
