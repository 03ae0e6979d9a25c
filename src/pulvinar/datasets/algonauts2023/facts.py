"""Where the data come from."""

from pulvinar.data.dataset import Facts

FACTS = Facts(
    citation="Gifford, Lahner, Saba-Sadiya, Vilas, Lascelles, Oliva, Kay, Roig & Cichy (2023), arXiv:2301.03198",
    url="http://algonauts.csail.mit.edu",
    licence="by agreement, as the Natural Scenes Dataset; not to be redistributed",
    by_hand="fill in the challenge's form, download the folders of the subjects and unpack them",
)
