"""What only blend promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvkernels.ops import KERNELS
from rvkernels.ops.blend import MEANS, UNSEEN, WINDOWS, Blend, Blended, BlendStream, blend, window_weights


def at(*positions):
    return np.array(positions, np.int64)


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    """Two chips of 2 x 2 that share a column; the pixel beyond them stays unseen."""
    first = np.array([[[0.9, 0.1], [0.6, 0.4]]] * 2, np.float32)
    second = np.array([[[0.2, 0.8], [0.0, 1.0]]] * 2, np.float32)
    labels, scores = blend(np.stack([first, second]), at(0, 0), at(0, 1), (2, 4), window="constant", kernel=kernel)
    assert labels.tolist() == [[0, 1, 1, UNSEEN]] * 2
    assert np.allclose(scores[0], [[0.9, 0.1], [0.4, 0.6], [0, 1], [0, 0]])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tie_goes_to_the_lowest_class(kernel):
    scores = np.full((1, 3, 3, 4), 0.25, np.float32)
    assert not blend(scores, at(0), at(0), (3, 3), kernel=kernel).labels.any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_crop_keeps_the_edges_of_the_scene_and_swaps_no_axes(kernel):
    """A chip in the middle of a scene that is not square loses its edges, one in a corner only those inside."""
    chip = np.ones((1, 10, 10, 1), np.float32)
    seen = blend(chip, at(5), at(20), (20, 40), crop=3, kernel=kernel).labels == 0
    want = np.zeros((20, 40), bool)
    want[8:12, 23:27] = True
    assert (seen == want).all()
    seen = blend(chip, at(-2), at(30), (20, 40), crop=3, kernel=kernel).labels == 0
    want[:] = False
    want[:5, 33:] = True
    assert (seen == want).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_cropped_chips_that_tile_a_scene_leave_no_hole(kernel):
    """The first and last chip of each row and column end exactly at the scene's edge and keep that side."""
    row, col = (np.ascontiguousarray(grid.ravel()) for grid in np.mgrid[0:5:4, 0:9:4].astype(np.int64))
    labels, _ = blend(np.ones((6, 8, 8, 1), np.float32), row, col, (12, 16), crop=2, kernel=kernel)
    assert not labels.any()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [1, 2, 7, 256])
def test_windows_are_symmetric_and_positive(window, size):
    weights = window_weights(window, size)
    assert weights.dtype == np.float32
    assert (weights > 0).all()
    assert np.allclose(weights, weights[::-1], rtol=1e-5)


def test_window_values():
    assert window_weights("constant", 3).tolist() == [1, 1, 1]
    assert window_weights("linear", 4).tolist() == [0.25, 0.75, 0.75, 0.25]
    assert np.allclose(window_weights("cosine", 3), [0.25, 1, 0.25])


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(WINDOWS)), st.integers(1, 9), st.integers(0, 3))
def test_equal_chips_give_their_scores_back(seed, window, size, crop):
    rng = np.random.default_rng(seed)
    n, rows, cols = rng.integers(1, 20, 3)
    chip_scores = rng.random(3).astype(np.float32)
    crop = min(crop, (size - 1) // 2)
    scores = np.broadcast_to(chip_scores, (n, size, size, 3)).copy()
    row, col = rng.integers(-size, rows + 1, n), rng.integers(-size, cols + 1, n)
    labels, mean = blend(scores, row, col, (int(rows), int(cols)), window=window, crop=crop)
    seen = labels != UNSEEN
    assert np.allclose(mean[seen], chip_scores, rtol=1e-5)
    assert not mean[~seen].any()
    assert (labels[seen] == chip_scores.argmax()).all()


def test_threads_and_portions_change_no_bit():
    rng = np.random.default_rng(5)
    scores = rng.random((60, 32, 32, 4), np.float32)
    row, col = rng.integers(-8, 180, 60), rng.integers(-8, 200, 60)
    want = blend(scores, row, col, (170, 190), crop=2, threads=1)
    for threads, portion in ((2, 60), (2, 7), (1, 13), (3, 1)):
        canvas = Blend(170, 190, 4, size=32, crop=2, threads=threads)
        for k in range(0, 60, portion):
            part = slice(k, k + portion)
            canvas.add(scores[part], row[part], col[part])
        labels, mean = canvas.finish()
        assert (labels == want.labels).all()
        assert (mean == want.scores).all()


def test_more_than_256_chips_on_a_pixel_count():
    """Counters of eight bits would wrap here."""
    scores = np.zeros((601, 1, 1, 2), np.float32)
    scores[:400, ..., 1] = 1
    scores[400:, ..., 0] = 1
    labels, mean = blend(scores, np.zeros(601, np.int64), np.zeros(601, np.int64), (1, 1))
    assert labels[0, 0] == 1
    assert mean[0, 0, 1] == pytest.approx(400 / 601, rel=1e-6)


def test_the_canvas_may_be_a_file(tmp_path):
    total = np.lib.format.open_memmap(tmp_path / "total.npy", "w+", np.float32, (6, 5, 2))
    canvas = Blend(6, 5, 2, size=4, total=total)
    canvas.add(np.ones((1, 4, 4, 2), np.float32), at(0), at(0))
    assert canvas.finish().scores is total
    assert total[0, 0].tolist() == [1, 1]


@pytest.mark.parametrize("means", MEANS)
def test_results_in_between_and_into_arrays_of_the_caller(means):
    rng = np.random.default_rng(9)
    scores, row, col = rng.random((30, 8, 8, 3), np.float32), rng.integers(0, 20, 30), rng.integers(0, 20, 30)
    canvas = Blend(25, 26, 3, size=8, means=means)
    shape = (25, 26, 3)
    out = Blended(np.empty((25, 26), np.uint8), None if means == "none" else np.empty(shape, means))
    for part in (slice(0, 12), slice(12, 30)):
        canvas.add(scores[part], row[part], col[part])
        found = canvas.finish(out)
        assert found.labels is out.labels
        assert found.scores is out.scores
        want = blend(scores[: part.stop], row[: part.stop], col[: part.stop], shape[:2], means=means)
        assert (found.labels == want.labels).all()
        assert means == "none" or (found.scores == want.scores).all()
    with pytest.raises(ValueError, match=r"out\.labels: expected shape"):
        canvas.finish(Blended(out.labels[1:], out.scores))
    with pytest.raises(ValueError, match=r"out\.scores: expected dtype"):
        canvas.finish(Blended(out.labels, np.empty(shape, np.float64)))


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 7, 8, 17])
@pytest.mark.parametrize("cols", [1, 3, 127, 128, 130, 259])
def test_every_number_of_classes_and_columns(classes, cols):
    """Pixels are turned round in fours and tiles; what lies beyond a row is another's."""
    rng = np.random.default_rng(classes * cols)
    scores = rng.random((40, 9, 9, classes), np.float32)
    row, col = rng.integers(-4, 8, 40), rng.integers(-4, cols, 40)
    for means in MEANS:
        want = blend(scores, row, col, (11, cols), means=means, kernel="reference")
        got = blend(scores, row, col, (11, cols), means=means)
        assert (got.labels == want.labels).all()
        assert (got.scores is None) if means == "none" else (got.scores == want.scores).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_uint8_scores_are_rounded_half_to_even_and_held(kernel):
    values = np.array([0.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1.0, 1.25, -0.25, 0.999], np.float32)
    scores = values.reshape(1, 1, 1, 8)
    _, got = blend(scores, at(0), at(0), (1, 1), window="constant", means="uint8", kernel=kernel)
    assert got.dtype == np.uint8
    assert got[0, 0].tolist() == [0, 0, 2, 2, 255, 255, 0, 255]


class Strips(list):
    """Takes the strips of a stream and puts them together."""

    def __call__(self, first, blended):
        assert first == sum(len(labels) for labels, _ in self)
        self.append(tuple(None if part is None else part.copy() for part in blended))

    def whole(self):
        labels, scores = zip(*self)
        return np.concatenate(labels), None if scores[0] is None else np.concatenate(scores)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize(("strip", "portion"), [(1, 3), (16, 7), (23, 100), (500, 9)])
def test_a_stream_gives_the_bits_of_a_canvas(kernel, means, strip, portion):
    rng = np.random.default_rng(6)
    scores = rng.random((100, 16, 16, 3), np.float32)
    row, col = np.sort(rng.integers(-20, 100, 100)), rng.integers(-8, 60, 100)
    row[row > 40] += 70  # rows where no chip is
    shape, options = (171, 50), {"window": "linear", "crop": 3}
    want = blend(scores, row, col, shape, means=means, kernel=kernel, **options)
    for threads in (1, 2):
        strips = Strips()
        stream = BlendStream(
            *shape, 3, size=16, take=strips, strip=strip, means=means, kernel=kernel, threads=threads, **options
        )
        assert len(stream.total) <= 16 + strip
        for k in range(0, 100, portion):
            part = slice(k, k + portion)
            stream.add(scores[part], row[part], col[part])
        stream.finish()
        assert {len(labels) for labels, _ in strips[:-1]} <= {strip}
        labels, found = strips.whole()
        assert (labels == want.labels).all()
        assert (labels == UNSEEN).any()
        assert (found is None) if means == "none" else (found == want.scores).all()


def test_a_stream_hands_out_what_is_finished():
    """Rows below a chip are kept: with chips of 8 rows and strips of 4, row 12 is the first that frees a strip."""
    strips = Strips()
    stream = BlendStream(40, 8, 1, size=8, take=strips, strip=4)
    chip = np.ones((1, 8, 8, 1), np.float32)
    handed = []
    for row in (0, 4, 5, 8, 30):
        stream.add(chip, at(row), at(0))
        handed.append(len(strips))
    assert handed == [0, 0, 1, 1, 7]
    stream.finish()
    assert len(strips) == 10


def test_a_stream_refuses_chips_out_of_order():
    stream = BlendStream(40, 8, 1, size=8, take=Strips())
    chips = np.ones((2, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="row: falls"):
        stream.add(chips, at(3, 2), at(0, 0))
    stream.add(chips, at(3, 3), at(4, 0))
    with pytest.raises(ValueError, match="row: falls"):
        stream.add(chips, at(2, 3), at(0, 0))
    stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.add(chips, at(5, 5), at(0, 0))
    with pytest.raises(ValueError, match="strip"):
        BlendStream(40, 8, 1, size=8, take=Strips(), strip=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_stream_names_the_pixel_of_the_scene(kernel):
    stream = BlendStream(60, 8, 1, size=8, take=Strips(), strip=5, kernel=kernel)
    scores = np.ones((1, 8, 8, 1), np.float32)
    scores[0, 2, 3] = np.nan
    stream.add(scores, at(21), at(1))
    with pytest.raises(ValueError, match="scores: not finite at row 23, col 4"):
        stream.add(scores, at(50), at(0))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(kernel, bad):
    scores = np.ones((1, 4, 4, 2), np.float32)
    scores[0, 1, 2, 0] = bad
    with pytest.raises(ValueError, match="scores: not finite at row 3, col 5"):
        blend(scores, at(2), at(3), (9, 9), kernel=kernel)


def test_bad_arguments():
    good = np.ones((1, 4, 4, 2), np.float32)
    canvas = Blend(9, 9, 2, size=4)
    with pytest.raises(ValueError, match=r"scores: expected shape \(1, 4, 4, 2\)"):
        canvas.add(good[..., :1].copy(), at(0), at(0))
    with pytest.raises(ValueError, match="scores: expected dtype float32"):
        canvas.add(good.astype(np.float64), at(0), at(0))
    with pytest.raises(ValueError, match="row: expected dtype int64"):
        canvas.add(good, at(0).astype(np.int32), at(0))
    with pytest.raises(ValueError, match=r"col: expected shape \(1\)"):
        canvas.add(good, at(0), at(0, 1))
    with pytest.raises(ValueError, match="2\\^40"):
        canvas.add(good, at(2**50), at(0))
    canvas.finish()
    with pytest.raises(ValueError, match="finished"):
        canvas.add(good, at(0), at(0))
    with pytest.raises(ValueError, match="finished"):
        canvas.finish()
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        Blend(9, 9, 2, size=4, window="cosin")
    with pytest.raises(ValueError, match="Did you mean 'uint8'"):
        Blend(9, 9, 2, size=4, means="uint16")
    with pytest.raises(ValueError, match="crop"):
        Blend(9, 9, 2, size=4, crop=2)
    with pytest.raises(ValueError, match="classes"):
        Blend(9, 9, 256, size=4)
    with pytest.raises(ValueError, match=r"total: expected shape \(9, 9, 2\)"):
        Blend(9, 9, 2, size=4, total=np.zeros((9, 9, 3), np.float32))
