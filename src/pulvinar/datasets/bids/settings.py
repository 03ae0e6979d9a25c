"""What may be said about a BIDS folder: `bids:DIR?name=value&name=value`."""

from dataclasses import dataclass
from typing import Literal

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.data.confounds import CompCor, ConfoundSettings, Model, require_names
from pulvinar.data.source_options import TrialOptions
from pulvinar.data.trial_glm import TrialModel

HRF = {"glover": "glover", "spm": "spm", "glover+derivative": "glover + derivative", "spm+derivative": "spm + derivative"}


@dataclass(frozen=True, kw_only=True)
class Options(TrialOptions):
    """What to read, and how betas are estimated."""

    subjects: tuple[str, ...] = setting((), "such as 01,03; none: all that have series", heading="Which files")
    target: str | None = setting(None, "the new subject; none: the first")
    derivatives: str | None = setting(
        None, "folder in derivatives/ whose series are read, or raw; none: the only one with preprocessed series, else raw"
    )
    raw: str | None = setting(None, "the raw data, where the folder is of derivatives alone; none: two folders above")
    space: str | None = setting(None, "such as T1w, MNI152NLin2009cAsym; needed where there are several")
    res: str | None = setting(None, "resolution, such as 2; needed where there are several")
    desc: str = setting("preproc", "which series of the derivatives, such as preproc, smoothAROMAnonaggr")
    task: str | None = setting(None, "such as images; needed where there are several")
    entities: tuple[str, ...] = setting((), "further choices, such as acq-highres,rec-norm")
    sessions: tuple[str, ...] = setting((), "such as 01,02; none: all")
    runs: tuple[int, ...] = setting((), "numbers of runs; none: all", at_least=0)
    missing: Literal["refuse", "skip"] = setting("refuse", "what to do about a run whose events are not there")
    repetition_time: float | None = setting(None, "seconds, where files do not say it or contradict each other", above=0)
    brain: Literal["fmriprep", "computed"] | None = setting(
        None, "brain mask beside the series, or nilearn's of its mean; none: fmriprep of derivatives, computed of raw series"
    )
    mask: str | None = setting(None, "NIfTI file: only voxels in it, such as a visual cortex")
    rois: str | None = setting(
        None, "folder in derivatives/ with sub-XX/**/sub-XX*_label-NAME*_mask.nii.gz; none: rois, where it is there"
    )
    affine_tolerance: float = setting(0.001, "mm by which entries of affines may differ", at_least=0, below=1)
    shown: Literal["images", "labels"] | None = setting(
        None, "what a trial shows; none: images where a column names them, else the label of its type", heading="Which trials"
    )
    stimulus_column: str | None = setting(None, "column of events that names the image; none: stimulus, else stim_file")
    trial_type: tuple[str, ...] = setting((), "rows of these types are trials; none: all that show something")
    type_column: str | None = setting(None, "where types (and labels) stand; none: trial_type, else event_type and the like")
    block_gap_s: float | None = setting(
        None, "rows of one stimulus or label less than so many seconds apart are one block; none: each row is a trial", above=0
    )
    duration_s: float | None = setting(None, "of all trials, in s; none: what the events say", at_least=0)
    drop_unmeasured_trials: bool = setting(
        False, "leave out trials that begin outside the run, too close to its end, or in a pause of it; else refuse them"
    )
    estimate: Literal["lss", "lsa", "window", "glmsingle"] | None = setting(
        None,
        "betas by least squares separate or all (nilearn), mean of a window, or GLMsingle's outputs; none: glmsingle where "
        "they "
        "are there, else lss",
        heading="How responses are estimated",
    )
    others: Literal["by_type", "together"] = setting(
        "by_type",
        "lss: other trials in a column for each of their types, or in a single one",
        counts="estimate=lss or estimate=none",
    )
    hrf: Literal["glover", "spm", "glover+derivative", "spm+derivative"] = setting(
        "glover", "haemodynamic response of nilearn", counts="estimate!=window and estimate!=glmsingle"
    )
    drift: Literal["cosine", "polynomial", "none"] = setting(
        "cosine", "drift model of nilearn", counts="estimate!=window and estimate!=glmsingle"
    )
    high_pass_hz: float = setting(0.01, "Hz, of the cosine drift (nilearn: .01)", above=0, counts="drift=cosine")
    drift_order: int = setting(1, "of the polynomial drift (nilearn: 1)", at_least=0, counts="drift=polynomial")
    noise: Literal["ols", "ar1"] = setting(
        "ols", "noise model of nilearn; ar1 takes a fit for every trial", counts="estimate!=window and estimate!=glmsingle"
    )
    scale: Literal["percent", "none"] = setting(
        "percent", "series in percent of each voxel's mean, or as they are", counts="estimate!=window and estimate!=glmsingle"
    )
    smoothing_mm: float | None = setting(
        None, "full width at half maximum of a Gaussian, mm; none: unsmoothed", above=0, counts="estimate!=glmsingle"
    )
    nuisance: tuple[str, ...] = setting(
        (),
        "types of rows that are no trials but in the model, such as button,cue",
        counts="estimate!=window and estimate!=glmsingle",
    )
    confounds: tuple[str, ...] = setting(
        (),
        "fMRIPrep's, by nilearn: motion,high_pass,wm_csf,global_signal,compcor,scrub, or one preset: simple, scrubbing, "
        "compcor, "
        "ica_aroma",
        counts="estimate!=window and estimate!=glmsingle",
    )
    motion: Model = setting("full", "of confounds motion", counts="confounds!=()")
    wm_csf: Model = setting("basic", "of confounds wm_csf", counts="confounds!=()")
    global_signal: Model = setting("basic", "of confounds global_signal", counts="confounds!=()")
    compcor: CompCor = setting("anat_combined", "of confounds compcor", counts="confounds!=()")
    n_compcor: int | None = setting(None, "components of compcor; none: all", at_least=1, counts="confounds!=()")
    scrub: int = setting(5, "shortest stretch of volumes that scrub keeps", at_least=0, counts="confounds!=()")
    fd_threshold_mm: float = setting(0.5, "mm of framewise displacement, of scrub", above=0, counts="confounds!=()")
    std_dvars_threshold: float = setting(1.5, "of scrub", above=0, counts="confounds!=()")
    window_from_s: float = setting(4.0, "s after the onset", at_least=0, counts="estimate=window")
    window_to_s: float = setting(8.0, "s after the onset", at_least=0, counts="estimate=window")
    table: str | None = setting(
        None, "CSV with a column id, and as needed source, label, split (train, test); of images", heading="Training and test"
    )
    test_share: float | None = setting(
        None, "of the images, by source; of the runs, the last ones, where labels are shown; none: .2", above=0, below=1
    )
    seed: int = setting(0, "of the random choice of test images", at_least=0, below=LARGEST_SEED)
    test_runs: tuple[int, ...] = setting((), "numbers of the runs that are the test, where labels are shown", at_least=0)

    def problems(self) -> list[str]:
        """What does not fit together."""
        wrong = require_names(self.confounds)
        if self.confounds_of.has_cosines and self.drift == "cosine":
            wrong.append(
                "drift=cosine and confounds with high_pass (all presets have it) are two sets of cosines; take drift=none"
            )
        if not self.window_from_s < self.window_to_s:
            wrong.append(f"window_from_s is before window_to_s, not {self.window_from_s:g} and {self.window_to_s:g}")
        wrong += [f"entities: {one} is not like acq-highres" for one in self.entities if not all(one.partition("-"))]
        if self.test_runs and self.test_share is not None:
            wrong.append("test_runs and test_share both choose the test; keep one of them")
        return wrong

    @property
    def model(self) -> TrialModel:
        """The model of single trials."""
        return TrialModel(
            estimate="lsa" if self.estimate == "lsa" else "lss",
            others=self.others,
            hrf=HRF[self.hrf],  # type: ignore[arg-type]
            drift=self.drift,
            high_pass_hz=self.high_pass_hz,
            drift_order=self.drift_order,
            noise=self.noise,
            percent=self.scale == "percent",
        )

    @property
    def confounds_of(self) -> ConfoundSettings:
        """Which confounds."""
        return ConfoundSettings(
            names=self.confounds,
            motion=self.motion,
            wm_csf=self.wm_csf,
            global_signal=self.global_signal,
            compcor=self.compcor,
            n_compcor=self.n_compcor,
            scrub=self.scrub,
            fd_threshold_mm=self.fd_threshold_mm,
            std_dvars_threshold=self.std_dvars_threshold,
        )
