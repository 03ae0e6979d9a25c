"""What BIDS is; a study's own citation and licence stand in its dataset_description.json."""

from pulvinar.data.dataset import Facts

OWN = "derivatives/pulvinar"  # embeddings, sources and a table of stimuli, for which BIDS has no place

FACTS = Facts(
    citation="Gorgolewski et al. (2016), The brain imaging data structure, Scientific Data 3:160044",
    url="https://bids.neuroimaging.io",
    licence="that of the study, in its dataset_description.json",
    space="that of the series that are read: volumes of the scanner, of T1w, of a template",
    by_hand="your own study, or one of a public archive of BIDS data",
)
