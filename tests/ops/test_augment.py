import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvkernels.ops import KERNELS, augment
from rvkernels.ops.augment import EVERYTHING, IGNORE, check_settings
from rvkernels.ops.augment import augment as run
from rvkernels.ops.normalize import DTYPES

CASES = [pytest.param(arguments, id=name) for name, arguments in augment.cases()]


def chips(shape, dtype=np.uint8, seed=0):
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    return (np.random.default_rng(seed).random(shape) * top).astype(dtype)


def plain(images, index=None, **more):
    """`run` without normalisation: the values themselves come back, as float32."""
    index = np.arange(len(images)) if index is None else index
    arguments = {"seed": 7, "epoch": 0, "mean": np.zeros(images.shape[3]), "dtype": "float32", **more}
    return run(images, index, **arguments)


def assert_same(first, second, tolerance=0.0):
    for a, b in zip(first, second):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, atol=tolerance, rtol=0)


@pytest.mark.parametrize("arguments", CASES)
def test_threads_and_batch_split_do_not_matter(arguments):
    whole = run(**arguments, threads=1)
    assert_same(whole, run(**arguments, threads=3))
    index = arguments["index"]
    parts = [run(**{**arguments, "index": index[part]}, threads=2) for part in (slice(0, 1), slice(1, None))]
    np.testing.assert_array_equal(whole.images, np.concatenate([part.images for part in parts]))
    np.testing.assert_array_equal(whole.labels, np.concatenate([part.labels for part in parts]))
    np.testing.assert_array_equal(whole.boxes, np.concatenate([part.boxes for part in parts]))
    np.testing.assert_array_equal(whole.box_keep, np.concatenate([part.box_keep for part in parts]))
    np.testing.assert_array_equal(np.diff(whole.box_start), np.concatenate([np.diff(p.box_start) for p in parts]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_no_settings_take_and_normalise(kernel, layout):
    images = chips((5, 6, 7, 3), np.uint16)
    index, mean, std = np.array([4, 0, 0]), np.array([1e4, 2e4, 3e4]), np.array([1e3, 2e3, 3e3])
    found = run(images, index, seed=0, epoch=0, mean=mean, std=std, layout=layout, kernel=kernel).images
    expected = (images[index] - mean) / std
    np.testing.assert_allclose(found, expected if layout == "NHWC" else expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(40, 9, 9, 2), (40, 6, 11, 3), (2, 1, 1, 1)])
def test_flips_and_turns_give_each_of_the_symmetries_exactly(shape, kernel):
    images, labels = chips(shape), chips(shape[:3], seed=1) % 5
    found = plain(images, settings={"flip": True, "turn": True}, labels=labels, kernel=kernel)
    seen = set()
    for i in range(len(images)):
        candidates = {
            (turns, flip): [np.rot90(a[i, ::-1] if flip else a[i], turns) for a in (images, labels)]
            for turns in range(4)
            for flip in (False, True)
        }
        same = [k for k, (image, _) in candidates.items() if np.array_equal(image, found.images[i])]
        assert same, f"chip {i} is no symmetry of its source"
        np.testing.assert_array_equal(found.labels[i], candidates[same[0]][1])
        seen.add(same[0])
    assert len(seen) == {9: 8, 6: 4, 1: 1}[shape[1]]


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from(DTYPES),
    st.sampled_from([(0, 0), (-3, 2), (1, -5)]),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_moves_alone_keep_the_type_and_every_bit(rows, cols, bands, dtype, larger):
    """Blocks of pixels and what is left beside them, of one byte to twenty, into windows that cut and surround."""
    images = chips((2, rows, cols, bands), np.dtype(dtype).type)
    size = (max(rows + larger[0], 1), max(cols + larger[1], 1))
    steps = {"flip": True, "turn": True, "crop": True, "shift": 0.3}
    arguments = {"seed": rows * cols, "epoch": bands, "settings": steps, "size": size, "fill": 5}
    index = np.array([0, 1, 1, 0, 1])
    labels = chips(images.shape[:3], seed=1)
    found = run(images, index, labels=labels, **arguments)
    assert found.images.dtype == images.dtype
    assert_same(found, run(images, index, labels=labels, **arguments, kernel="reference"))


def test_each_symmetry_is_as_likely():
    image = chips((1, 5, 5, 1))
    turned = plain(image.repeat(400, axis=0), settings={"turn": True}).images
    counts = [np.all(turned == np.rot90(image[0], k), axis=(1, 2, 3)).sum() for k in range(4)]
    assert sum(counts) == 400
    assert min(counts) > 70
    flipped = plain(image.repeat(400, axis=0), settings={"flip": True}).images
    for axes in ((0,), (1,), (0, 1), ()):
        assert 70 < np.all(flipped == np.flip(image[0], axes), axis=(1, 2, 3)).sum() < 130


@pytest.mark.parametrize("more", [{}, {"rotate": 1e-3}])
def test_shift_covers_its_range_both_ways(more):
    labels = np.zeros((300, 20, 40), np.uint8)
    labels[:, 10, 20] = 1
    found = plain(np.zeros((300, 20, 40, 1), np.uint8), settings={"shift": 0.2, **more}, labels=labels).labels
    moved_by = np.argwhere(found == 1)[:, 1:] - (10, 20)
    assert len(moved_by) == 300
    np.testing.assert_array_equal(moved_by.min(axis=0), [-4, -8])
    np.testing.assert_array_equal(moved_by.max(axis=0), [4, 8])


def moved(images, moves, shift_by=0.0, **more):
    """The batch that the geometry `moves`, a (2, 2) matrix on (y, x) about the middle, makes of every chip.

    shift_by: how far the output's pixels come from further right
    """
    size = images.shape[1:3]
    n, middle = len(images), np.array(size) / 2
    centre = np.tile(middle + np.array([0, shift_by]), (n, 1))
    every = augment.Moves(np.tile(np.array(moves, float), (n, 1, 1)), np.tile(middle, (n, 1)), centre)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "draw_moves", lambda *_: every)
        return plain(images, **more)


@given(
    st.integers(1, 24),
    st.sampled_from([1, 3, 4, 13]),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from(KERNELS),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_two_flips_and_four_turns_are_the_identity(side, bands, dtype, kernel):
    images = chips((2, side, side, bands), dtype)
    boxes = np.array([[0, 0, side, side / 2], [0, side / 4, side, side]], np.float32)
    for matrix, times in (([[-1, 0], [0, 1]], 2), ([[1, 0], [0, -1]], 2), ([[0, 1], [-1, 0]], 4)):
        now, now_boxes = images, boxes
        for _ in range(times):
            batch = moved(now, matrix, boxes=now_boxes, box_start=np.array([0, 1, 2]), kernel=kernel)
            now, now_boxes = batch.images.astype(dtype), batch.boxes
        np.testing.assert_array_equal(now, images)
        np.testing.assert_array_equal(now_boxes, boxes)


@given(st.integers(0, 2**32), st.integers(8, 40), st.integers(8, 40), st.booleans(), st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_boxes_and_labels_move_with_the_pixels(seed, rows, cols, whole, data):
    top, left = data.draw(st.integers(0, rows - 6)), data.draw(st.integers(0, cols - 6))
    bottom, right = data.draw(st.integers(top + 6, rows)), data.draw(st.integers(left + 6, cols))
    images, labels = np.zeros((1, rows, cols, 1), np.uint8), np.zeros((1, rows, cols), np.uint8)
    images[0, top:bottom, left:right] = 200
    labels[0, top:bottom, left:right] = 3
    wanted = {"flip": True, "turn": True, "shift": 0.3}
    if not whole:
        wanted.update(data.draw(st.sampled_from([{"scale": [0.7, 1.4], "rotate": 180}, {"resized_crop": [0.5, 1]}])))
    batch = plain(
        images,
        seed=seed,
        settings=wanted,
        labels=labels,
        boxes=np.array([[top, left, bottom, right]], np.float32),
        box_start=np.array([0, 1]),
    )
    painted = np.argwhere(batch.labels[0] == 3)
    if len(batch.boxes) == 0:
        share = len(painted) / ((bottom - top) * (right - left))
        assert share < 0.8  # dropped boxes have lost a good part of their hull
        return
    found = np.concatenate([painted.min(axis=0), painted.max(axis=0) + 1])
    box, size = batch.boxes[0], np.array([rows, cols])
    assert (found[:2] > box[:2] - 1).all()
    assert (found[2:] < box[2:] + 1).all()
    if whole:
        np.testing.assert_array_equal(box, found)
    elif (box[:2] > 0).all() and (box[2:] < size).all():
        # A corner of a turned box is narrower than a pixel, so up to two pixels at its tip stay unpainted.
        np.testing.assert_allclose(box, found, atol=2)
    bright = batch.images[0, :, :, 0] > 100
    if whole:
        np.testing.assert_array_equal(bright, batch.labels[0] == 3)
    else:
        assert (bright != (batch.labels[0] == 3)).sum() <= 4 + 0.15 * len(painted)


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(1, 30), min_size=4, max_size=4),
    st.sampled_from([1, 2, 3, 4, 5, 13]),
    st.sampled_from([0.2, 1.0]),  # some chips lie outside altogether
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_kernels_agree_on_any_size(seed, sides, bands, shift):
    images, labels = chips((2, sides[0], sides[1], bands), np.uint16), chips((2, sides[0], sides[1]))
    arguments = {
        "images": images,
        "index": np.array([1, 0]),
        "seed": seed,
        "epoch": 4,
        "mean": np.full(bands, 3e4),
        "std": np.full(bands, 1e4),
        "settings": {**EVERYTHING, "crop": True, "shift": shift},
        "size": tuple(sides[2:]),
        "labels": labels,
    }
    assert_same(run(**arguments), run(**arguments, kernel="reference"), augment.TOLERANCE)


@pytest.mark.parametrize("kernel", KERNELS)
def test_interpolation_worked_example(kernel):
    images = np.array([[[[0], [8]], [[16], [24]]]], np.uint8)
    # Twice as large about the middle: pixel centres fall a quarter pixel from the source's.
    found = moved(images, [[0.5, 0], [0, 0.5]], labels=images[..., 0], kernel=kernel)
    np.testing.assert_array_equal(found.images[0, :, :, 0], [[6, 10], [14, 18]])
    np.testing.assert_array_equal(found.labels[0], images[0, :, :, 0])
    # Half as large: the corners lie outside.
    images = np.full((1, 4, 4, 1), 50, np.uint8)
    found = moved(images, [[2, 0], [0, 2]], labels=images[..., 0], fill=9.0, kernel=kernel)
    expected = np.full((4, 4), 9)
    expected[1:3, 1:3] = 50
    np.testing.assert_array_equal(found.images[0, :, :, 0], expected)
    np.testing.assert_array_equal(found.labels[0] == IGNORE, expected == 9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_outside_is_zero_after_normalisation_under_all_colour_steps(kernel):
    colour = {k: EVERYTHING[k] for k in ("brightness", "contrast", "gamma", "saturation", "hue", "noise")}
    images, labels = chips((4, 16, 16, 3)), np.zeros((4, 16, 16), np.uint8)
    index = np.arange(4)
    batch = run(
        images,
        index,
        seed=1,
        epoch=1,
        mean=np.full(3, 100),
        std=np.full(3, 50),
        settings={**colour, "shift": 0.5, "rotate": 45},
        labels=labels,
        kernel=kernel,
    )
    outside = batch.labels == IGNORE
    assert 0.1 < outside.mean() < 0.9
    assert not batch.images[outside].any()
    assert (batch.images[~outside] != 0).mean() > 0.99


def test_size_cuts_the_middle_and_crop_any_window():
    images = np.arange(100, dtype=np.uint8).reshape(1, 10, 10, 1).repeat(300, axis=0)
    middle = plain(images, size=(4, 6)).images
    np.testing.assert_array_equal(middle, images[:, 3:7, 2:8])
    corners = {int(c[0, 0, 0]) for c in plain(images, size=(4, 9), settings={"crop": True}).images}
    assert corners == {10 * row + col for row in range(7) for col in range(2)}
    around = plain(images, size=(12, 14), fill=5.0).images
    np.testing.assert_array_equal(around[:, 1:11, 2:12], images)
    assert (around[:, 0] == 5).all()


@pytest.mark.parametrize("more", [{}, {"flip": True, "turn": True}])
def test_resized_crop_stretches_windows_of_the_areas_asked_for(more):
    """Pixels hold their own place, so that an output tells which window of the chip it is."""
    rows, cols = 32, 40
    places = np.stack(np.meshgrid(np.arange(rows) + 0.5, np.arange(cols) + 0.5, indexing="ij"), axis=2)
    images = np.repeat(places[None].astype(np.float32), 200, axis=0)
    found = plain(images, settings={"resized_crop": [0.3, 0.6], **more}).images.astype(np.float64)
    limits = []
    for axis, length in ((0, rows), (1, cols)):
        at = found[:, :, cols // 2, 0] if axis == 0 else found[:, rows // 2, :, 1]
        step = (at[:, -6] - at[:, 5]) / (length - 11)  # the outermost pixels of a chip hold half a pixel more
        first, last = (at[:, 5] - 5.5 * step) / length, (at[:, -6] + 5.5 * step) / length
        limits.append((np.minimum(first, last), np.maximum(first, last)))
    (top, bottom), (left, right) = limits
    assert min(top.min(), left.min()) > -1e-4
    assert max(bottom.max(), right.max()) < 1 + 1e-4
    assert min(top.min(), left.min()) < 0.02
    assert max(bottom.max(), right.max()) > 0.98
    area, proportion = (bottom - top) * (right - left), (bottom - top) / (right - left)
    assert 0.3 - 1e-4 < area.min() < 0.32
    assert 0.58 < area.max() < 0.6 + 1e-4
    assert 3 / 4 - 1e-4 < proportion.min() < 0.77
    assert 1.3 < proportion.max() < 4 / 3 + 1e-4


def test_brightness_contrast_and_gamma_follow_their_formulas():
    images = chips((200, 2, 2, 1))
    factor = plain(images, settings={"brightness": 0.25}).images / np.maximum(images, 1)
    factor = factor[images.min(axis=(1, 2, 3)) > 0]
    np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1, :1], factor.shape), rtol=2e-5)
    assert factor.min() < 0.78
    assert factor.max() > 1.22
    found = run(images, np.arange(200), seed=1, epoch=0, mean=[90], std=[1], settings={"contrast": 0.5}).images
    ratio = (found / np.where(images == 90, 1, images - 90.0))[(images != 90).all(axis=(1, 2, 3))]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-4)
    assert ratio.min() < 0.55
    assert ratio.max() > 1.45
    ends = np.tile(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1), (5, 1, 1, 1))
    np.testing.assert_allclose(plain(ends, settings={"gamma": 0.9}).images, ends, atol=1e-3)


def test_gamma_is_a_power():
    x = np.concatenate([np.geomspace(2**-30.9, 1, 20_000), np.linspace(0.4, 1, 5_000)]).astype(np.float32)
    for gamma in (0.25, 0.8, 1, 1.2, 4):
        found = augment._power(x, np.float32(gamma))
        np.testing.assert_allclose(found, x.astype(np.float64) ** gamma, rtol=2e-5)
    assert augment._power(np.float32([1]), np.float32(1.3)) == 1
    values = np.array([np.nan, -1, 0, 1e-12, 2], np.float32).reshape(1, 1, 5, 1).repeat(7, axis=0)
    found = plain(values, settings={"gamma": 2, "peak": 1}).images[0, 0, :, 0]
    np.testing.assert_array_equal(found, [np.nan, 0, 0, 0, 1])


def test_grey_stays_grey_and_further_bands_stay():
    images = chips((20, 3, 3, 5))
    images[:10, :, :, :3] = images[:10, :, :, :1]
    found = plain(images, settings={"saturation": 0.9, "hue": 0.5}).images
    np.testing.assert_allclose(found[:10], images[:10], atol=0.3)  # the published YIQ rows round to three digits
    assert np.abs(found[10:, :, :, :3] - images[10:, :, :, :3]).mean() > 10
    np.testing.assert_array_equal(found[..., 3:], images[..., 3:])
    two = chips((2, 3, 3, 2))
    np.testing.assert_array_equal(plain(two, settings={"saturation": 0.9, "hue": 0.5}).images, two)


def test_blur_spreads_a_point_as_a_gaussian():
    images = np.zeros((20, 31, 31, 1), np.float32)
    images[:, 15, 15] = 1
    found = plain(images, settings={"blur": 3}).images[..., 0]
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(found, found[:, ::-1, ::-1], atol=1e-7)
    variance = (found.sum(axis=1) * (np.arange(31) - 15) ** 2).sum(axis=1)
    assert variance.max() < 9
    assert variance.max() > 6
    np.testing.assert_allclose(plain(np.full((1, 5, 4, 2), 77, np.uint8), settings={"blur": 2}).images, 77, atol=1e-3)


def test_noise_is_centred_and_differs_between_chips_and_epochs():
    images = np.full((40, 32, 32, 1), 100, np.uint8)
    noise = plain(images, settings={"noise": 0.1}).images - 100
    deviation = noise.std(axis=(1, 2, 3))
    assert deviation.max() < 25.5 * 1.05
    assert deviation.max() > 20
    assert abs(noise.mean()) < 0.5
    standard = noise / deviation[:, None, None, None]
    assert np.abs(standard).max() < 3.8
    assert abs((standard**4).mean() - 2.7) < 0.1  # kurtosis of a sum of four even numbers
    assert abs((standard[0] * standard[1]).mean()) < 0.15
    other = plain(images, settings={"noise": 0.1}, epoch=1).images - 100
    assert abs((other * noise).mean()) < 0.1 * noise.std() * other.std()


def test_noise_is_uncorrelated_where_values_share_a_word():
    images = np.zeros((1, 512, 80, 3), np.float32)
    noise = plain(images, settings={"noise": 1, "peak": 1}).images[0].transpose(0, 2, 1)
    runs = noise.reshape(512, 15, 16).transpose(1, 0, 2).reshape(15, -1)  # 240 values: fifteen runs of sixteen blocks
    correlation = np.corrcoef(runs)
    assert np.abs(correlation - np.eye(15)).max() < 0.06
    assert np.abs(runs.std(axis=1) / runs.std() - 1).max() < 0.05


def test_cutout_and_channel_drop_put_the_fill():
    images = np.full((50, 20, 20, 3), 200, np.uint8)
    found = plain(images, settings={"cutout": {"count": 1, "size": 0.5}}, fill=3.0).images
    assert set(np.unique(found)) == {3.0, 200.0}
    assert ((found == 3).sum(axis=(1, 2)) <= 100).all()
    assert ((found == 3).sum(axis=(1, 2)) >= 25).all()
    assert (found == found[..., :1]).all()
    bands = plain(images, settings={"channel_drop": 0.5}, fill=3.0).images
    assert (bands == bands[:, :1, :1]).all()
    kept = (bands[:, 0, 0] == 200).sum(axis=1)
    assert kept.min() == 1
    assert kept.max() == 3


def test_small_boxes_stay_where_nothing_is_lost_and_cut_ones_go():
    images = np.zeros((1, 10, 10, 1), np.uint8)
    boxes = np.array([[1, 1, 2, 2.5], [3, 3, 8, 8], [0, 0, 4, 4], [3, 0, 7, 3.9], [0, 0, 6.9, 9]], np.float32)
    arguments = {"boxes": boxes, "box_start": np.array([0, 5])}
    same = plain(images, **arguments)
    np.testing.assert_array_equal(same.boxes, boxes)
    np.testing.assert_array_equal(same.box_keep, np.arange(5))
    # Rows and columns 3 to 7. The last box keeps 15.6 of 62.1 square pixels: a little more than a quarter.
    cut = plain(images, size=(4, 4), **arguments)
    np.testing.assert_array_equal(cut.boxes, np.array([[0, 0, 4, 4], [0, 0, 3.9, 4]], np.float32))
    np.testing.assert_array_equal(cut.box_keep, [1, 4])
    boxes[4, 3] = 9.5
    np.testing.assert_array_equal(plain(images, size=(4, 4), **arguments).box_keep, [1])
    np.testing.assert_array_equal(cut.box_start, [0, 2])
    halved = moved(images, [[4, 0], [0, 4]], **arguments)
    assert len(halved.boxes) == 0


def test_boxes_of_the_chips_asked_for_in_their_order():
    boxes = np.arange(5, dtype=np.float32)[:, None] + np.array([0, 0, 4, 4], np.float32)
    batch = plain(
        np.zeros((3, 10, 10, 1), np.uint8), np.array([2, 1, 0, 2]), boxes=boxes, box_start=np.array([0, 2, 2, 5])
    )
    np.testing.assert_array_equal(batch.box_keep, [2, 3, 4, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(batch.box_start, [0, 3, 3, 5, 8])
    np.testing.assert_array_equal(batch.boxes, boxes[batch.box_keep])


def test_empty_batch():
    batch = plain(
        chips((3, 8, 8, 3)),
        np.array([], np.int64),
        settings=EVERYTHING,
        labels=np.zeros((3, 8, 8), np.uint8),
        boxes=np.zeros((0, 4), np.float32),
        box_start=np.zeros(4, np.int64),
    )
    assert batch.images.shape == (0, 8, 8, 3)
    assert batch.labels.shape == (0, 8, 8)
    assert batch.boxes.shape == (0, 4)
    np.testing.assert_array_equal(batch.box_start, [0])


def test_memory_map_and_reused_output(tmp_path):
    images = chips((6, 12, 12, 4), np.uint16)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    out = np.full((6, 4, 12, 12), np.nan, np.float32)
    arguments = {"settings": EVERYTHING, "layout": "NCHW"}
    found = plain(mapped, out=out, **arguments)
    assert found.images is out
    np.testing.assert_array_equal(out, plain(images, **arguments).images)


def test_integers_are_rounded_to_even_and_held():
    images = np.array([1, 2, 3, 6], np.uint8).reshape(1, 1, 4, 1)
    # Pixel centres fall between pixels: 1.5, 2.5, 4.5.
    halves = moved(images, [[1, 0], [0, 1]], dtype="uint8", shift_by=0.5).images[0, 0, :3, 0]
    np.testing.assert_array_equal(halves, [2, 2, 4])
    for dtype in (np.uint8, np.uint16, np.int16):
        limits = np.iinfo(dtype)
        images = np.array([limits.min, 0, limits.max], dtype).reshape(1, 1, 3, 1).repeat(30, axis=0)
        steps = {"brightness": 0.9}
        found, values = plain(images, settings=steps, dtype=images.dtype.name), plain(images, settings=steps)
        assert (values.images > limits.max).any()
        np.testing.assert_array_equal(found.images, np.clip(np.rint(values.images), limits.min, limits.max))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("cols", [15, 64, 65, 200])
def test_bytes_come_back_from_every_value(cols, bands):
    """In the kernel, values stand in blocks of 64 pixels and a rest; contrast takes them beyond both ends of a byte."""
    images = (np.arange(7 * cols * bands) * 37 % 256).astype(np.uint8).reshape(1, 7, cols, bands)
    images = images.repeat(6, axis=0)
    for step in ({"brightness": 1}, {"rotate": 20}):
        arguments = {"seed": 1, "epoch": 0, "mean": np.full(bands, 128), "settings": {"contrast": 1, **step}}
        made = run(images, np.arange(6), **arguments).images
        assert_same([made], [run(images, np.arange(6), **arguments, kernel="reference").images])
        assert made.min() == 0
        assert made.max() == 255


COLOURS = {"brightness": 0.5, "contrast": 0.9, "gamma": 0.5, "saturation": 1, "hue": 0.5}


@pytest.mark.parametrize("bands", [3, 4, 5])
@pytest.mark.parametrize("size", [(1, 1), (7, 21), (40, 64), (90, 129)])
@pytest.mark.parametrize("more", [{}, {"flip": True, "turn": True, "crop": True}, {"shift": 0.3}])
@pytest.mark.parametrize("step", ["gamma", "hue", "all"])
def test_colours_of_bytes_to_bytes(step, more, size, bands):
    """One pass of the kernel where a strip has no outside; elsewhere, and for other bands, step by step."""
    images = chips((3, size[0] + 2, size[1] + 5, bands))
    drawn = COLOURS if step == "all" else {step: COLOURS[step]}
    arguments = {"seed": 2, "epoch": 1, "mean": np.full(bands, 128), "settings": {**drawn, **more}, "size": size}
    made = run(images, np.arange(3), **arguments).images
    assert_same([made], [run(images, np.arange(3), **arguments, kernel="reference").images])


def test_colours_of_bytes_to_bytes_too_large_for_the_caches():
    images = chips((3, 97, 101, 3))
    arguments = {"seed": 3, "epoch": 1, "mean": [1, 2, 3], "settings": {**COLOURS, "flip": True}}
    large = run(images, np.arange(600) % 3, **arguments).images
    assert large.nbytes > 2**24
    one = run(images, np.arange(3), **arguments).images
    np.testing.assert_array_equal(large.reshape(200, -1), one.reshape(1, -1).repeat(200, 0))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_too_large_for_the_caches(layout, dtype):
    """They are written another way: in whole cache lines, of which a row rarely begins one."""
    images = chips((3, 97, 101, 3))
    arguments = {"seed": 3, "epoch": 1, "mean": [1, 2, 3], "std": [4, 5, 6], "layout": layout, "dtype": dtype}
    arguments["settings"] = {"flip": True, "turn": True, "brightness": 0.2}
    large = run(images, np.arange(300) % 3, **arguments).images
    assert large.nbytes > 2**24
    one = run(images, np.arange(3), **arguments).images
    np.testing.assert_array_equal(
        large.view(np.uint8).reshape(100, -1), one.view(np.uint8).reshape(1, -1).repeat(100, 0)
    )


def test_bfloat16_is_the_rounded_float32():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    images = chips((4, 9, 11, 3), np.uint16)
    arguments = {"mean": [3e4] * 3, "std": [1e4] * 3, "settings": EVERYTHING}
    found = plain(images, **{**arguments, "dtype": "bfloat16"}).images
    expected = plain(images, **arguments).images.astype(ml_dtypes.bfloat16)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


def test_label_output_is_filled_and_returned():
    images, labels = chips((3, 8, 8, 1)), chips((3, 8, 8), seed=1)
    out = np.zeros((3, 8, 8), np.uint8)
    assert plain(images, labels=labels, out_labels=out).labels is out
    np.testing.assert_array_equal(out, labels)


def test_epochs_and_seeds_differ_and_repeat():
    images = chips((4, 16, 16, 3))
    first = plain(images, settings=EVERYTHING).images
    np.testing.assert_array_equal(first, plain(images, settings=EVERYTHING).images)
    assert not np.array_equal(first, plain(images, settings=EVERYTHING, epoch=1).images)
    assert not np.array_equal(first, plain(images, settings=EVERYTHING, seed=8).images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"flop": True}, "unknown setting 'flop'.*Did you mean 'flip'"),
        ({"flip": 1}, "augment.flip: expected true or false, got 1"),
        ({"rotate": "15"}, "augment.rotate: expected a number, got '15'"),
        ({"rotate": True}, "augment.rotate: expected a number"),
        ({"rotate": 200}, "augment.rotate: expected 0 to 180, got 200"),
        ({"hue": -0.1}, "augment.hue: expected 0 to 0.5"),
        ({"scale": 1.2}, r"augment.scale: expected \[least, greatest\]"),
        ({"scale": [1.2, 0.8]}, r"augment.scale: expected \[least, greatest\]"),
        ({"scale": [0, 1]}, "augment.scale: expected 0.1 to 10"),
        ({"resized_crop": 0.5}, r"augment.resized_crop: expected \[least, greatest\] share of the area"),
        ({"resized_crop": [0.5, 2]}, "augment.resized_crop: expected 0.01 to 1"),
        ({"cutout": {"count": 2}}, "augment.cutout: expected"),
        ({"cutout": {"count": 1.5, "size": 0.1}}, "augment.cutout.count: expected a whole number"),
        ({"peak": float("inf")}, "augment.peak"),
        (["flip"], "expected a mapping"),
    ],
)
def test_bad_settings_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        check_settings(given)


def test_settings_that_do_nothing_are_left_out():
    off = {
        "flip": False,
        "rotate": 0,
        "scale": [1, 1],
        "resized_crop": [1, 1],
        "cutout": {"count": 0, "size": 0.5},
        "blur": 0.0,
    }
    assert check_settings(off) == {}
    assert check_settings(None) == {}
    assert check_settings({**EVERYTHING, "peak": 1000}, dtype="float32").keys() == {*EVERYTHING, "peak"}
    with pytest.raises(ValueError, match="float32 chips need `peak`"):
        check_settings({"noise": 0.1}, dtype="float32")


GOOD = {"images": np.zeros((2, 4, 4, 2), np.uint8), "index": np.array([0]), "seed": 0, "epoch": 0, "mean": [0, 0]}
GOOD["std"] = [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": np.array([2])}, "index: expected rows 0 to 1 of images, got 2 to 2"),
        ({"index": np.array([-1])}, "index: expected rows"),
        ({"index": np.array([0.5])}, "index: expected whole numbers"),
        ({"seed": -1}, "seed"),
        ({"size": (0, 4)}, "size"),
        ({"labels": np.zeros((2, 4, 4), np.int32)}, "labels: expected dtype uint8"),
        ({"boxes": np.zeros((1, 4), np.float32)}, "box_start: expected int64"),
        ({"boxes": np.zeros((1, 4), np.float32), "box_start": np.array([0, 0, 2])}, "box_start: expected 0 to 1"),
        ({"boxes": np.zeros((1, 5), np.float32)}, r"boxes: expected shape \(boxes, 4\)"),
        ({"fill": [1, 2, 3]}, "fill: expected one number or 2"),
        ({"out": np.zeros((2, 4, 4, 2), np.float32)}, r"out: expected shape \("),
        ({"threads": -1}, "threads: expected 0"),
        ({"dtype": "uint8"}, "dtype: no 'uint8' here; there are bfloat16, float32"),
        ({"dtype": "uint16", "std": None}, "dtype: no 'uint16' here; there are bfloat16, float32, uint8"),
        ({"mean": None}, "mean: expected 2 finite numbers"),
        ({"mean": None, "std": None, "settings": {"contrast": 0.1}}, "mean: contrast"),
        ({"out_labels": np.zeros((1, 4, 4), np.uint8)}, "out_labels: there are no labels"),
        (
            {"labels": np.zeros((2, 4, 4), np.uint8), "out_labels": np.zeros((1, 4, 5), np.uint8)},
            "out_labels: expected",
        ),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        run(**{**GOOD, **change})
