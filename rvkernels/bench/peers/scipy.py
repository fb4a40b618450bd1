"""SciPy."""

import numpy as np
from scipy import ndimage


def components(inputs, threads):
    neighbours = ndimage.generate_binary_structure(2, 1 if inputs["connectivity"] == 4 else 2)
    labels = np.empty(inputs["mask"].shape, np.int32)

    def run():
        return {"count": ndimage.label(inputs["mask"], neighbours, output=labels), "labels": labels}

    return run
