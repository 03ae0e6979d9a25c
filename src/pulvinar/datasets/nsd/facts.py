"""Where the data come from."""

from pulvinar.data.dataset import Facts

FACTS = Facts(
    citation="Allen, St-Yves, Wu, ..., Naselaris & Kay (2022), Nature Neuroscience 25, 116-126",
    url="http://naturalscenesdataset.org",
    licence="by agreement with the authors; not to be redistributed",
)
