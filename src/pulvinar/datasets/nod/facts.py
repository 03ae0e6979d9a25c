"""Where the data come from."""

from pulvinar.data.dataset import Facts

FACTS = Facts(
    citation=(
        "Gong, Zhou, Dai, Wen, Liu & Zhen (2023), A large-scale fMRI dataset for the visual processing of naturalistic scenes"
    ),
    url="https://openneuro.org/datasets/ds004496",
    licence="CC0",
)
