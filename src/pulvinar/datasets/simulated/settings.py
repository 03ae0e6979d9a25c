"""Settings of a planted world."""

from dataclasses import dataclass
from typing import Literal

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.networks.perturbed import driver_name

Kind = Literal["plain", "unequal", "redundant", "suppress", "hidden", "apart", "drift"]


def _driver(text: str) -> str | None:
    """The network that areas follow; None for the fixed ones."""
    return None if text == "fixed" else driver_name(text)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What world to plant."""

    seed: int = setting(0, "changes pictures, heads, areas, tuning and noise", at_least=0, below=LARGEST_SEED)
    kind: Kind = setting("plain", "in what voxels mislead a selection (docs/methods/selectors.md)")
    n_subjects: int = setting(4, "the last one is the new subject", at_least=1)
    n_voxels: int = setting(8000, "places in the new subject's head; the others' differ by up to 10 %", at_least=200)
    responsive_share: float = setting(0.1, "share of voxels that respond to images", at_least=0, below=1)
    irrelevant_share: float = setting(
        0.03, "share of voxels that are reliable but carry no image information", at_least=0, below=1
    )
    scattered_share: float = setting(
        0.25, "share of each area's voxels that lie scattered around its core", at_least=0, below=1
    )
    ceiling_median: float = setting(
        0.35, "median r^2 noise ceiling of responsive voxels, mean of three repeats", at_least=0, below=1
    )
    ceiling_spread: float = setting(1.2, "standard deviation of the log odds of the ceiling over voxels", at_least=0)
    tuning_dim: int = setting(24, "feature dimensions each area encodes", at_least=1)
    n_trials: int = setting(600, "single training trials of the new subject (one session)", at_least=20)
    n_pretraining_trials: int = setting(1000, "training trials of each other subject", at_least=20)
    repeated_share: float = setting(0.1, "share of the new subject's training images that are shown twice", at_least=0, below=1)
    n_test_images: int = setting(300, "test images, shown to the new subject", at_least=10)
    n_test_repeats: int = setting(3, "presentations of each test image", at_least=1)
    noise_smoothness: float = setting(1.2, "width (voxels) of the spatially smooth noise", at_least=0)
    noise_autocorrelation: float = setting(0.3, "correlation of the noise between successive trials", at_least=0, below=1)
    embedding_dim: int = setting(64, "dimensions of the target embedding", at_least=2)
    image_size: int = setting(64, "pixels along an edge of a stimulus", at_least=16)
    images: str | None = setting(None, "a folder of your own pictures (FOLDER?background=black) instead of the bundled ones")
    driver: str = setting(
        "fixed", "what areas follow: fixed networks, or perturbed:NAME, a changed copy of a network", reads=_driver
    )
    driver_weights: str | None = setting(
        None, "weights of that network, as `load_network` takes them; none: random", counts="driver!=fixed"
    )
    driver_strength: float = setting(
        0.6, "how much it is changed: spread of log gains of its channels", at_least=0, counts="driver!=fixed"
    )
    driver_own: float = setting(
        0.0,
        "share of the change's variance that is each subject's own; 0: all follow one copy",
        at_least=0,
        at_most=1,
        counts="driver!=fixed",
    )

    def problems(self) -> list[str]:
        """What does not fit together."""
        lines = []
        if self.responsive_share + self.irrelevant_share > 1:
            lines.append("responsive_share and irrelevant_share are shares of the same voxels; their sum is above 1")
        if self.driver == "fixed" and (self.driver_own or self.driver_weights):
            lines.append("driver_own and driver_weights are of a perturbed network; driver is fixed")
        return lines
