"""The interface behind which a framework stands: NumPy in, NumPy out.

rvkernels/frameworks/<name>.py has one class `Framework` with the members below, and is the only file that imports the
framework. No framework reads a file, shuffles, augments or computes a metric.

loss      {"name": "cross_entropy" | "dice" | "cross_entropy_dice" | "focal" | "detection", ...}:
          cross_entropy, focal and dice take classification targets (n,) int32 or segmentation targets (n, rows, cols)
          int32. Targets equal to `ignore` count for nothing: the mean is over the others (0 when there are none).
          cross_entropy: label_smoothing e (target (1 - e) one-hot + e / classes), class_weights w per class
              (mean = sum(w[y] loss) / sum(w[y]) as in PyTorch; smoothing as PyTorch's with weights)
          focal: multi-class, gamma; -(1 - p_y)^gamma log p_y, mean over targets
          dice: 1 - mean over classes of (2 sum p t + 1) / (sum p + sum t + 1), sums over all targets of the batch
          cross_entropy_dice: their sum
          detection takes (labels (n, locations) int32: class, or -1 background, or -2 ignore;
              distances (n, locations, 4) float32: target distances in units of the location's stride):
              sigmoid focal loss (alpha 0.25, gamma 2) of every class at every location not ignored, summed, plus
              box_weight * sum of the box loss over locations with a class, both divided by max(1, number of locations
              with a class). box: "giou" (1 - GIoU of the boxes the distances span) or "l1" (mean absolute difference
              of the four distances) or "giou_l1" (their sum). Predicted distances are softplus(raw).
optimizer {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}:
              g += weight_decay * w; v = momentum * v + g; w -= lr * (g + momentum * v if nesterov else v)
          {"name": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}:
              m = beta1 m + (1 - beta1) g; s = beta2 s + (1 - beta2) g^2;
              w -= lr * (m / (1 - beta1^t) / (sqrt(s / (1 - beta2^t)) + eps) + weight_decay * w)
          weight decay acts on the weights of Conv, ConvTranspose and Dense only (names that end in .weight)
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rvkernels.models import Graph


class Framework(Protocol):
    """One model in one framework."""

    layout: str  # "NHWC" or "NCHW": the layout of the image batches it wants

    def __init__(
        self,
        graph: Graph,
        weights: dict[str, np.ndarray],
        loss: dict,
        optimizer: dict,
        *,
        device: str = "cpu",
        threads: int = 1,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        """`device` "cpu" or "cuda"; `precision` "float32" or "bfloat16" (arithmetic; weights stay float32)."""

    def step(self, images: np.ndarray, targets: tuple[np.ndarray, ...], lr: float) -> float:
        """One optimizer step in training mode; the loss before it."""

    def gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients by weight name in training mode; no weight, state or running statistic changes."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, in inference mode, in the form that Graph.output describes."""

    def weights(self) -> dict[str, np.ndarray]:
        """Copies, float32, under canonical names and in canonical layouts."""

    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the optimizer keeps between steps."""

    def load(self, weights: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None) -> None:
        """Continue from `weights` and `state` (None: a fresh optimizer)."""

    def wait(self) -> None:
        """Return when the device has finished."""

    @staticmethod
    def versions() -> dict[str, str]:
        """What a record keeps: the framework's version, its compute libraries, the device."""
