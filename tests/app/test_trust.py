"""What was joined by its order alone is a caution of the run and of its headline. Oracle: whether the files hold names."""

import json

import h5py
import numpy as np

from pulvinar.app import fit as fitting
from pulvinar.app import registry
from pulvinar.cli import main
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning.runs import RunFolder
from pulvinar.report import run_folder
from pulvinar.report.findings import cautions

SETTINGS = ["epochs=1", "hidden=8"]


def fitted(world, out, feature) -> list[str]:
    """Cautions of a decoder of this feature; the two of its evaluation too."""
    fitting.fit("cross_subject_decoder", data=str(world), out=str(out), assignments=[*SETTINGS, f"feature={feature}"])
    return json.loads((out / "run.json").read_text()).get("cautions", [])


def test_a_feature_file_without_names_is_a_caution_of_every_run_that_reads_it(world, tmp_path):
    with h5py.File(world / "stimuli.h5") as file:
        values, names = file["features/clip"][...], file["id"].asstr()[...]
    np.save(tmp_path / "bare.npy", values)
    np.savez(tmp_path / "named.npz", clip=values[::-1], id=names[::-1].astype(str))
    for number in range(2):  # the second run of a process too, though it is said once
        said = fitted(world, tmp_path / f"run-{number}", tmp_path / "bare.npy")
        assert [text for text in said if "bare.npy" in text and "on trust" in text]
        assert set(said) <= set(cautions(run_folder.read(tmp_path / f"run-{number}")))
    assert not [text for text in fitted(world, tmp_path / "named", tmp_path / "named.npz") if "trust" in text]


def test_data_joined_on_trust_are_a_caution_of_the_run(tmp_path):
    ids = [f"a{row}" for row in range(5)]
    rdm = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
    data = Dissimilarities(
        name="bare",
        stimuli=Stimuli(ids=ids, sources=ids),
        targets={"it": SubjectRDMs(name="it", rdms=np.stack([rdm, rdm**2]))},
        on_trust={"order of it": "no names of the images in the file of it"},
    )
    method = registry.method("learning_to_aggregate")
    run = fitting.create_run(tmp_path / "run", method, method.config(), data)
    said = "Joined by their order alone, on trust: order of it (no names of the images in the file of it)."
    assert RunFolder.reopen(run.path).facts["cautions"] == [said]
    assert said in cautions(run_folder.read(run.path))


def test_rdm_files_without_names_are_a_caution_of_the_comparison(tmp_path, capsys):
    rdms = np.random.default_rng(0).random((3, 6, 6))
    rdms = (rdms + rdms.transpose(0, 2, 1)) * (1 - np.eye(6))
    np.save(tmp_path / "model.npy", rdms[0])
    np.savez(tmp_path / "measured.npz", fmri_it=rdms, ids=list("abcdef"))
    np.savez(tmp_path / "named.npz", model=rdms[0], ids=list("abcdef"))
    pair = ["--permutations", "20", "--bootstrap", "20"]
    assert main(["rsa", "compare", str(tmp_path / "model.npy"), str(tmp_path / "measured.npz"), *pair]) == 0
    assert "caution: images of predicted were joined on trust" in capsys.readouterr().out
    assert main(["rsa", "compare", str(tmp_path / "named.npz"), str(tmp_path / "measured.npz"), *pair]) == 0
    assert "caution" not in capsys.readouterr().out
