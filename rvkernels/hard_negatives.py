"""Hard negatives of a detector: training chips without objects come again where it finds objects none the less.

Before an epoch the network as it stands looks at every training chip without objects. The places that these chips have
in the epoch then go, for a share of them, to chips in proportion to the scores of what was found there, all of it
false; the other places go to chips drawn evenly, each at most once. So an epoch stays as long as it is, chips with
objects are all in it, and chips without are not always the same few. Where nothing was found an epoch is as usual.

This is bootstrapping (Sung and Poggio 1998, "Example-based learning for view-based human face detection"; hard negative
mining in Felzenszwalb et al. 2010, "Object detection with discriminatively trained part-based models"), with a draw in
proportion to the error in place of a list that grows.

How many chips without objects there are is `negatives` of the chips. One that is drawn twice in an epoch is augmented
the same way both times: its augmentation is a function of seed, epoch and chip.
"""

from __future__ import annotations

import numpy as np

from rvkernels.ops import philox

_OP_EVENLY, _OP_BY_SCORE = 140, 141  # philox streams


def complete_settings(*, share: float = 0.5, after: int = 1) -> dict[str, float | int]:
    """The settings of the draw, with defaults.

    share  of the places of chips without objects that go by what was found
    after  epochs that see every chip once first: what an untrained network finds says nothing
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise ValueError(f"share is {share!r}, expected a number above 0 and at most 1")
    if type(after) is not int or after < 0:
        raise ValueError(f"after is {after!r}, expected a whole number of at least 0")
    return {"share": float(share), "after": after}


def draw(
    negatives: np.ndarray, scores: np.ndarray, share: float, *, seed: int, epoch: int, kernel: str = "cpp"
) -> np.ndarray:
    """The chips without objects of an epoch: as many as `negatives` (n,) int64, ascending.

    scores  (n,) sums of the scores of what was found in each
    share   of the n places that go by score; see `complete_settings`

    By score the draw is systematic: with one random number u the chips at (u + i) / k of the summed scores, i = 0 to
    k - 1, so that a chip comes its expected number of times, rounded up or down.
    """
    total = np.cumsum(scores, dtype=np.float64)
    if not len(negatives) or total[-1] == 0:
        return np.sort(negatives)
    by_score = round(share * len(negatives))
    evenly = philox.permutation(len(negatives), seed, epoch, op=_OP_EVENLY, kernel=kernel)[by_score:]
    start = float(philox.uniform(seed, epoch, 0, _OP_BY_SCORE, 1, kernel=kernel)[0])
    at = (start + np.arange(by_score)) / max(1, by_score) * total[-1]
    hard = np.searchsorted(total, at, side="right")
    last = np.flatnonzero(scores)[-1]  # where rounding puts the last place at the very end
    return np.sort(negatives[np.concatenate([np.minimum(hard, last), evenly])])
