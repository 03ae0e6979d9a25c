"""Transfer matrix of tuned networks on a planted world: each subject's own, all on all subjects, against the untuned one.

    python benchmarks/planted_transfer.py OUT --weights squeezenet1_0_imagenet.npz --images PICTURES

All subjects see the same outer test images and training images of their own; the voxels of all follow one perturbed copy of the
network, or with --own copies whose changes are each subject's own in this share of their variance. World and run stay
in OUT. Prints what `pulvinar encoding transfer OUT/run` does.
"""

import numpy as np
from planted_tuning import world_arguments

from pulvinar.app import encoding, fit
from pulvinar.core.progress import REPORTER
from pulvinar.data.experiment import save
from pulvinar.datasets.simulated import Config, simulate

N_TEST, N_REPEATS = 200, 3


def main() -> None:
    arguments = world_arguments(__doc__)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--n-subjects", type=int, default=3)
    arguments.add_argument("--n", type=int, default=450, help="training images a subject")
    arguments.add_argument("--own", type=float, default=0.0, help="share of the network's change that is a subject's own")
    arguments.add_argument("--roi", default="higher")
    arguments.add_argument("--tuned", default="after:features.5")
    arguments.add_argument("--epochs", type=int, default=8)
    given = arguments.parse_args()
    REPORTER.quiet = True
    data, run = given.out / "world", given.out / "run"
    if not data.is_dir():
        own = [np.arange(N_TEST + number * given.n, N_TEST + (number + 1) * given.n) for number in range(given.n_subjects)]
        tests = [(2 + repeat, np.arange(N_TEST)) for repeat in range(N_REPEATS)]
        config = Config(
            seed=given.seed,
            n_subjects=given.n_subjects,
            n_voxels=2000,
            responsive_share=0.3,
            ceiling_median=0.6,
            tuning_dim=8,
            n_test_images=N_TEST,
            image_size=48,
            images=str(given.images) if given.images else None,
            driver=f"perturbed:{given.network}",
            driver_weights=str(given.weights),
            driver_own=given.own,
        )
        save(simulate(config, shown=[[(1, numbers), *tests] for numbers in own]), data)
    if not run.is_dir():
        subjects = ",".join(f"subj{number + 1:02d}" for number in range(given.n_subjects))
        settings = {
            "network": given.network,
            "weights": given.weights,
            "image_size": 48,
            "layer_choice": "concatenated",
            "batch_size": 64,
            "pool": 1,
            "epochs": given.epochs,
            "learning_rate": 3e-4,
            "head_learning_rate": 1e-3,
            "roi": given.roi,
            "tuned": given.tuned,
            "subjects": subjects,
            "seed": given.seed,
        }
        fit.fit("contrastive_encoding", data=str(data), out=str(run), assignments=[f"{k}={v}" for k, v in settings.items()])
    print(encoding.transfer([str(run)])["text"])


if __name__ == "__main__":
    main()
