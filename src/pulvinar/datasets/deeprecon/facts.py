"""Where Deeprecon comes from, and what its files are called."""

from pulvinar.data.dataset import Facts, PublishedFile

SUBJECTS = ("sub-01", "sub-02", "sub-03")
TRAINING, TEST = "Training", "Test"
FORMS = {
    "original": "{subject}_perceptionNaturalImage{kind}_original_VC.h5",
    "fmriprep": "{subject}_ImageNet{kind}_fmriprep_volume_native.h5",
}
N_TRAINING, N_TEST = 1200, 50  # pictures
N_TRAINING_REPEATS, N_TEST_REPEATS = 5, 24
WHOLE = "VC"
_SOURCE = "figshare:7033577"

FACTS = Facts(
    citation=(
        "Shen, Horikawa, Majima & Kamitani (2019), Deep image reconstruction from human brain activity, PLoS Computational "
        "Biology 15:e1006633"
    ),
    url="https://figshare.com/articles/dataset/Deep_Image_Reconstruction/7033577",
    licence="raw data CC0 (OpenNeuro ds001506); the licence of the figshare files was not established here",
    terms="pictures on request, by a form of the owners; they are those of Generic Object Decoding",
    subjects=SUBJECTS,
    space="functional volume of each subject, 2 mm",
    files=tuple(PublishedFile(path=FORMS["original"].replace("{kind}", kind), source=_SOURCE) for kind in (TRAINING, TEST)),
    by_hand=(
        "the pictures, on request by the owners' form, into images/; the fMRIPrep form from figshare (files 37838826, "
        "37848333, 37850397 of the training, 37838595, 37848300, 37849986 of the test); files of artificial shapes and letters"
    ),
)
