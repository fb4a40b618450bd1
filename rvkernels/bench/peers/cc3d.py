"""cc3d (connected-components-3d): components in C++."""

import cc3d
import numpy as np


def components(inputs, threads):
    mask = np.array(inputs["mask"])  # it refuses arrays that are read-only

    def run():
        # It has no argument for a buffer of the caller's.
        labels, count = cc3d.connected_components(mask, connectivity=inputs["connectivity"], return_N=True)
        return {"labels": labels, "count": count}

    return run


def components_with_statistics(inputs, threads):
    label = components(inputs, threads)

    def run():
        found = label()
        found["area"] = cc3d.statistics(found["labels"])["voxel_counts"]
        return found

    return run
