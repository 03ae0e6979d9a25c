"""Where Generic Object Decoding comes from, and what its files call things."""

from pulvinar.data.dataset import Facts, PublishedFile

SUBJECTS = tuple(f"Subject{number}" for number in range(1, 6))
TRAINING, TEST, IMAGERY = 1, 2, 3  # DataType
N_REPEATS = 35  # of every test picture
REGIONS = ("V1", "V2", "V3", "V4", "LOC", "FFA", "PPA", "LVC", "HVC", "VC")  # ROI_V1, ...; VC holds the others
WHOLE = "VC"
_ARTICLE = "https://figshare.com/articles/dataset/Generic_Object_Decoding/7387130"

FACTS = Facts(
    citation=(
        "Horikawa & Kamitani (2017), Generic decoding of seen and imagined objects using hierarchical visual features, Nature "
        "Communications 8:15037"
    ),
    url=_ARTICLE,
    licence="raw data CC0 (OpenNeuro ds001246); the licence of the figshare files was not established here",
    terms="pictures on request, by a form of the owners; some test pictures are in ImageNet's training set",
    subjects=SUBJECTS,
    space="functional volume of each subject, 3 mm",
    files=(PublishedFile(path="{subject}.h5", source="figshare:7387130"),),
    by_hand="the pictures, on request by the owners' form, into images/",
)
