"""Where the data come from."""

from pulvinar.data.dataset import Facts, PublishedFile

SOURCE = "s3://natural-scenes-dataset"
_BETAS = "nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR"

FACTS = Facts(
    citation="Allen, St-Yves, Wu, ..., Naselaris & Kay (2022), Nature Neuroscience 25, 116-126",
    url="http://naturalscenesdataset.org",
    licence="by agreement with the authors; not to be redistributed",
    terms="research and education; no redistribution, no sale",
    agreement="use needs NSD's data access agreement, a form on the owners' page that is filled in once",
    subjects=tuple(f"subj{number:02d}" for number in range(1, 9)),
    space="functional volume of each subject, 1.8 mm (fsaverage and 1 mm: by hand)",
    files=(
        PublishedFile(path="nsddata/experiments/nsd/nsd_expdesign.mat", source=SOURCE),
        PublishedFile(path="nsddata/experiments/nsd/nsd_stim_info_merged.csv", source=SOURCE, optional=True),
        PublishedFile(path="nsddata/ppdata/{subject}/func1pt8mm/brainmask.nii.gz", source=SOURCE),
        PublishedFile(path="nsddata/ppdata/{subject}/func1pt8mm/roi/*.nii.gz", source=SOURCE, optional=True),
        PublishedFile(path="nsddata/freesurfer/{subject}/label/*.mgz.ctab", source=SOURCE, optional=True),
        PublishedFile(path=f"{_BETAS}/betas_session{{session}}.hdf5", source=SOURCE),
        PublishedFile(path=f"{_BETAS}/ncsnr.nii.gz", source=SOURCE, optional=True),
        PublishedFile(path="nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", source=SOURCE, images=True),
    ),
    by_hand=(
        "other spaces and betas, NSD-synthetic and NSD-imagery, from the same bucket with the AWS command line "
        "(--no-sign-request)"
    ),
)
