"""shapely: GEOS, all windows in one call. It has no threads of its own."""

import numpy as np
import shapely


def _polygon(inputs):
    start = inputs["ring_start"]
    rings = [inputs["coords"][a:b] for a, b in zip(start, start[1:])]
    return shapely.make_valid(shapely.Polygon(rings[0], rings[1:]))


def _boxes(inputs):
    size, stride = inputs["size"], inputs["stride"]
    starts = [np.arange(0, length - size + 1, stride) for length in (inputs["rows"], inputs["cols"])]
    starts = [
        np.append(s, length - size) if s[-1] + size < length else s
        for s, length in zip(starts, (inputs["rows"], inputs["cols"]))
    ]
    row, col = (v.ravel().astype(np.float64) for v in np.meshgrid(*starts, indexing="ij"))
    return shapely.box(col, row, col + size, row + size)


def _fresh(area):
    """The polygon without what a run before has prepared."""
    return shapely.from_wkb(area)


def prepared_within(inputs, threads):
    area = shapely.to_wkb(_polygon(inputs))

    def run():
        polygon = _fresh(area)
        shapely.prepare(polygon)
        return shapely.covers(polygon, _boxes(inputs))

    return run


def prepared_intersects(inputs, threads):
    area = shapely.to_wkb(_polygon(inputs))

    def run():
        polygon = _fresh(area)
        shapely.prepare(polygon)
        boxes = _boxes(inputs)
        return shapely.intersects(polygon, boxes) & ~shapely.touches(polygon, boxes)

    return run


def tree_within(inputs, threads):
    area = shapely.to_wkb(_polygon(inputs))

    def run():
        boxes = _boxes(inputs)
        found = np.zeros(len(boxes), bool)
        found[shapely.STRtree(boxes).query(_fresh(area), predicate="covers")] = True
        return found

    return run
