"""Where the data come from."""

from pulvinar.data.dataset import Facts

FACTS = Facts(
    citation=(
        "Cichy, Roig, Andonian, Dwivedi, Lahner, Lascelles, Mohsenzadeh, Ramakrishnan & Oliva 2019, The Algonauts Project: A "
        "Platform for Communication between the Sciences of Biological and Artificial Intelligence, arXiv:1905.05675. 92 "
        "images: Cichy, Pantazis & Oliva 2014, Nature Neuroscience 17:455, and 2016, Cerebral Cortex 26:3563."
    ),
    url="http://algonauts.csail.mit.edu/2019/",
    licence="the terms on the challenge's page; no data are bundled or downloaded here",
    by_hand="download the sets from the challenge's page and unpack them; they are handed out by forms",
)
