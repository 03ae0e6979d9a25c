"""Natural Scenes Dataset: 8 people, up to 40 sessions of 750 trials, 73,000 photographs (Allen et al. 2022).

    experiment = load("NSD")                                       # the folder that holds nsddata, nsddata_betas, ...
    experiment = load("NSD?subjects=1,2,5,7&sessions=1&box=60x40x40&others=nsdgeneral")

The official files are read as they lie on disk (files.py has their conventions, docs/nsd.md the folders); access needs
an agreement with the authors, and nothing of them comes with this library. `generate` writes a planted world in that layout.

- A trial is one presentation; the image of trial t of subject s is subjectim[s, masterordering[t] - 1] - 1, counted from 0.
- Test images are among the 1,000 shared ones (masterordering <= 1000): `shared1000`, all of them; or `shared982`, as in work
  before August 2023, when each subject's last three sessions were not public: those shown in the first 37 sessions, with the
  trials of all but a subject's last three sessions. Shared images are never for training.
- Responses are int16 percent signal change x 300 (surface: float32 percent), read session by session when asked for.
- Noise ceiling in r^2: ncsnr^2 / (ncsnr^2 + m), m the mean of 1/n over test images shown n times. The released ncsnr has seen
  all sessions, test trials too: what selects by it is an oracle.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.nsd.facts import FACTS
from pulvinar.datasets.nsd.files import SHARED_CLUSTERS
from pulvinar.datasets.nsd.reader import NSDExperiment, Options, load, probes
from pulvinar.datasets.nsd.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "NSDExperiment", "Options", "load", "probes"]

DATASET = Dataset(
    name="nsd",
    facts=FACTS,
    load=load,
    splits=Splits(
        owners="the images shown to every subject are the test",
        named={"ood": "NSD-synthetic, a session of artificial pictures (test=synthetic)"},
        caution=SHARED_CLUSTERS,
    ),
    probes=probes,
    generated=Generated,
    generate=generator(write_world, target="subj01"),
)
