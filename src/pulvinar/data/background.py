"""Uniform backgrounds of pictures: where they are, and the same picture on another one; what a silhouette is made from."""

import numpy as np
import scipy.ndimage

TOLERANCE = 12  # of 255, per colour: JPEG artefacts around a uniform colour
LEAST_SHARE = 0.5  # of the border's pixels that must have the border's most common colour
GREY = 128  # what the 92 objects of Kriegeskorte et al. 2008 stood on in the scanner


def background_mask(image: np.ndarray) -> np.ndarray:
    """Which pixels (height, width) are a uniform background: connected to the border, near its most common colour.

    A photograph that fills its frame has none: less than half of its border has one colour.
    """
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).astype(int)
    colours, counts = np.unique(border // 8, axis=0, return_counts=True)
    colour = np.median(border[(border // 8 == colours[counts.argmax()]).all(1)], axis=0)
    near = (np.abs(image.astype(int) - colour) <= TOLERANCE).all(-1)
    outside = near.copy()
    outside[1:-1, 1:-1] = False
    if outside.sum() < LEAST_SHARE * len(border):
        return np.zeros(image.shape[:2], bool)
    labels, _ = scipy.ndimage.label(near)
    return near & np.isin(labels, np.unique(labels[outside]))


def on_grey(image: np.ndarray) -> np.ndarray:
    """The picture with a uniform white background made mid-grey (128); any other picture as it is.

    Cut-outs are stored on white, as transparent pixels turn out, but were shown on grey. A dark or coloured background of a
    photograph was shown as it is.
    """
    mask = background_mask(image)
    white = mask.any() and (np.median(image[mask], axis=0) >= 255 - TOLERANCE).all()
    return np.where(mask[..., None], np.uint8(GREY), image) if white else image
