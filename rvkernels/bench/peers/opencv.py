"""OpenCV, with the number of threads that a case asks for."""

import cv2
import numpy as np


def _threads(threads):
    cv2.setNumThreads(threads or cv2.getNumberOfCPUs())


def nms(inputs, threads):
    _threads(threads)
    low, high = inputs["boxes"][:, [1, 0]], inputs["boxes"][:, [3, 2]]
    boxes = np.concatenate([low, high - low], 1).astype(np.float64)
    return lambda: cv2.dnn.NMSBoxes(boxes, inputs["scores"], 0.0, inputs["iou"])
