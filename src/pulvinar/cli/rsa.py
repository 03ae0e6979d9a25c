"""`pulvinar rsa`: dissimilarity matrices made from responses; their noise ceilings, comparison, scores and submissions."""

import argparse

from pulvinar.cli.common import Commands, Result, say


def _rsa_build(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import rsa

    result = rsa.build(
        arguments.source,
        arguments.out,
        roi=arguments.roi,
        subjects=arguments.subject,
        image_size=arguments.image_size,
        distance=arguments.distance,
        folds=arguments.folds,
        noise=arguments.noise,
        zscore=arguments.zscore,
        images=arguments.images,
        drop_bad_voxels=arguments.drop_bad_voxels,
    )
    say(arguments, rsa.built_as_text(result))
    return result


def _rsa_ceiling(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import rsa

    result = rsa.ceiling(arguments.file, target=arguments.target, method=arguments.method)
    say(arguments, rsa.ceiling_as_text(result))
    return result


def _rsa_compare(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import rsa

    result = rsa.compare(
        arguments.predicted,
        arguments.measured,
        method=arguments.method,
        target=arguments.target,
        beyond=arguments.beyond,
        n_permutations=arguments.permutations,
        n_bootstrap=arguments.bootstrap,
        seed=arguments.seed,
    )
    say(arguments, rsa.as_text(result))
    return result


def _rsa_score(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import rsa

    result = rsa.score(arguments.submission, arguments.data, published=arguments.published)
    say(arguments, rsa.score_as_text(result))
    return result


def _rsa_submit(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import rsa

    result = rsa.submit(arguments.out, arguments.rdm, file_format=arguments.format)
    say(arguments, "\n".join(result["files"]))
    return result


def declare(commands: Commands) -> None:
    """The command lines of this file."""
    kinds = commands.group(
        "rsa",
        "dissimilarity matrices: from responses, noise ceilings, comparison",
        "RDMs.",
        example="pulvinar rsa ceiling rdms.npz",
    )
    build = kinds.add(
        "build",
        _rsa_build,
        "RDMs of the responses of an experiment: one for each subject and ROI (docs/rsa.md)",
        example="pulvinar rsa build mystudy --roi IT --out rdms.npz",
    )
    build.add_argument("source", help="experiment folder, a description .toml, or dataset:path")
    build.add_argument("--out", required=True, help=".npz to write; must not exist")
    build.add_argument("--roi", action="append", help="voxels of this ROI; may be given again (default: all voxels)")
    build.add_argument("--subject", action="append", help="only this subject; may be given again (default: all)")
    build.add_argument("--distance", default="crossnobis", help="crossnobis (default), correlation, euclidean")
    build.add_argument("--folds", help="of crossnobis: runs, sessions, trials (default: the first of which there are two)")
    build.add_argument(
        "--noise",
        help="of crossnobis: shrinkage_diag (default), shrinkage_eye, diag (variances alone), none (voxels count alike)",
    )
    build.add_argument(
        "--zscore", default="none", help="of each voxel first, over its trials in: runs, sessions, none (default)"
    )
    build.add_argument("--images", default="all", help="all (default), or those of the split for train or test")
    build.add_argument("--image-size", type=int, metavar="N", help="pictures kept in the file as N x N (default: as they are)")
    build.add_argument("--drop-bad-voxels", action="store_true", help="leave out voxels that are constant, NaN or infinite")
    ceiling = kinds.add(
        "ceiling",
        _rsa_ceiling,
        "upper and leave-one-subject-out lower noise ceiling of measured RDMs",
        example="pulvinar rsa ceiling rdms.npz",
    )
    ceiling.add_argument("file", help="RDMs of subjects: .npz, .npy, or an rsatoolbox .h5")
    compare = kinds.add(
        "compare",
        _rsa_compare,
        "model RDMs against measured ones: r, null, interval, percent of the ceiling",
        example="pulvinar rsa compare model.npy rdms.npz",
    )
    compare.add_argument("predicted", help="RDM of a model, or several: .npy, .npz, or an rsatoolbox .h5")
    compare.add_argument("measured", help="RDMs of subjects over the same images (joined by name)")
    compare.add_argument("--beyond", help="file of confound models; adds the partial correlation beyond them")
    compare.add_argument("--permutations", type=int, default=1000, help="permutations of images (default 1000)")
    compare.add_argument("--bootstrap", type=int, default=1000, help="resamples of images and subjects (default 1000)")
    compare.add_argument("--seed", type=int, default=0, help="of permutations and bootstrap (default 0)")
    score = kinds.add(
        "score",
        _rsa_score,
        "predicted RDMs as the Algonauts 2019 challenge scores them, with both ceilings",
        example="pulvinar rsa score submission.zip Training_Data/118_Image_Set",
    )
    score.add_argument("submission", help="submission folder, .zip, .mat, .npy or .npz")
    score.add_argument("data", help="folder or file with the measured RDMs of one set (docs/algonauts2019.md)")
    score.add_argument("--published", action="store_true", help="the challenge's published ceilings, not those of these data")
    submit = kinds.add(
        "submit",
        _rsa_submit,
        "write the files that the Algonauts 2019 challenge takes",
        example="pulvinar rsa submit evc=evc.npy it=it.npy --out submission",
    )
    submit.add_argument("rdm", nargs="+", metavar="TARGET=FILE", help="evc, it, meg_early, meg_late; .npy, .npz or .h5")
    submit.add_argument("--out", required=True, help="the folder to write; must not exist")
    submit.add_argument("--format", default="mat", help="mat (default) or npy")
    for command in (ceiling, compare):
        command.add_argument(
            "--method",
            default="spearman",
            help="spearman (default), pearson, tau-a, tau-b (Kendall's), cosine, whitened_cosine, whitened_pearson",
        )
        command.add_argument("--target", help="only the measured RDMs of this name")
