"""The interface behind which a framework stands: NumPy in, NumPy out.

rvkernels/frameworks/<name>.py has one class `Framework` with the members below, and is the only file that imports the
framework; TITLE is its name as its makers write it, COLOR its colour in every figure. No framework reads a file,
shuffles, augments or computes a metric.

A framework that can train in several processes has, beside the class, a function launch(count, command) that runs
`command` as so many workers on this machine and returns the exit status of those that failed by rank
(rvkernels.workers.start), and its class takes `team`, the rvkernels.workers.Team to train with. `step`, `differentiate`
and `gradients` are then called by all workers at once, each with its own slice of a batch, and give the loss and
gradients of the whole batch: what the loss divides by (targets not ignored, locations with a class), the sums inside
dice, and the statistics of batch norm are taken over all slices. Weights and state stay the same in all workers;
`predict` is each one's own.

With `accumulate` k above 1 a step goes through its batch in k equal parts, micro-batches, one after the other, so that
memory is for one of them; loss and gradients are still those of the whole batch. The loss of each part counts as much
as what it was divided by: targets not ignored, their class weights, or locations with a class. Batch norm sees
micro-batches alone: it normalises with their statistics, and its running ones move k times in a step. Without it, a
step is that of k = 1 to within rounding. Dice is no sum over parts and refused, and a part whose class weights add up
to 0 counts for nothing, with label smoothing, too. With several workers each has a slice of each part.

loss      {"name": "cross_entropy" | "dice" | "cross_entropy_dice" | "focal" | "detection", ...}:
          cross_entropy, focal and dice take classification targets (n,) int32 or segmentation targets (n, rows, cols)
          int32. Targets equal to `ignore` count for nothing: the mean is over the others (0 when there are none).
          cross_entropy: label_smoothing e (target (1 - e) one-hot + e / classes), class_weights w per class
              (mean = sum(w[y] loss) / sum(w[y]) as in PyTorch; smoothing as PyTorch's with weights). soft, which
              training with mixed chips sets: classification targets are (n, classes) float32 t, shares of classes that
              add up to 1, in the place of one-hot ones, and sum(w t) in the place of sum(w[y])
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
          weight decay acts on the weights of Conv, ConvTranspose and Dense only (names that end in .weight), and of an
          own model on all that is trained and has two axes or more
          Both take clip c (None: no clipping): before the update, and before weight decay is added, every gradient of
          the whole batch is multiplied by min(1, c / n), n the L2 norm of all of them together (Pascanu et al. 2013,
          "On the difficulty of training recurrent neural networks", algorithm 1). So do tf.clip_by_global_norm
          and Caffe2's ClipTensorByScaling; torch.nn.utils.clip_grad_norm_ would add 1e-6 to n. `gradients` gives them
          unclipped.

The functions below check and complete what every framework is given, so that bad settings, images or targets are the
same one-line error in all of them.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Collection, Mapping

import numpy as np

from rvkernels import registry
from rvkernels.models import Conv, Graph, OwnModel, parameter_count, shapes, trained
from rvkernels.registry import suggest


def title(name: str) -> str:
    """The framework as its makers write it."""
    return registry.constant("frameworks", name, "TITLE", name)


def color(name: str) -> str:
    """Its colour in every figure, #rrggbb; gray for what is no framework, as the baseline."""
    return registry.constant("frameworks", name, "COLOR", "#6b7280")


# Settings of each loss with their defaults. `ignore` None: 255 for segmentation, as in label chips, else -1.
LOSSES: dict[str, dict[str, object]] = {
    "cross_entropy": {"ignore": None, "label_smoothing": 0.0, "class_weights": None},
    "dice": {"ignore": None},
    "cross_entropy_dice": {"ignore": None, "label_smoothing": 0.0, "class_weights": None},
    "focal": {"ignore": None, "gamma": 2.0},
    "detection": {"box": "giou", "box_weight": 1.0},
}
BOX_LOSSES = ("giou", "l1", "giou_l1")
OPTIMIZERS: dict[str, dict[str, object]] = {
    "sgd": {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "clip": None},
    "adamw": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "clip": None},
}
# Ranges [low, high) of numeric settings.
_RANGES: dict[str, tuple[float, float]] = {
    "label_smoothing": (0, 1),
    "gamma": (1, math.inf),  # below 1 the gradient at p = 1 is infinite
    "box_weight": (0, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "beta1": (0, 1),
    "beta2": (0, 1),
    "eps": (0, math.inf),
}


class Framework(abc.ABC):
    """One model in one framework: Framework(graph, weights, loss, optimizer, device="cpu", threads=1,
    precision="float32", compile=False, accumulate=1).

    device      "cpu" or "cuda"
    precision   "float32" or "bfloat16" (arithmetic; weights stay float32)
    accumulate  micro-batches that a step's batch is computed in
    """

    layout = "NHWC"  # or "NCHW": the layout of the image batches it wants

    def __init__(
        self,
        graph: Graph | OwnModel,
        loss: dict,
        optimizer: dict,
        *,
        device: str,
        threads: int,
        precision: str,
        accumulate: int,
    ) -> None:
        """What is the same in every framework: `_graph`, and `_loss` and `_optimizer`, complete and checked."""
        check_arithmetic(device, precision, threads)
        self._graph = graph
        self._loss = complete_loss(loss, graph)
        self._optimizer = complete_optimizer(optimizer)
        check_accumulate(accumulate, self._loss["name"])
        self._accumulate = accumulate
        self._sizes: dict[tuple[int, int], int | None] = {}

    @abc.abstractmethod
    def step(self, images: np.ndarray, targets: tuple[np.ndarray, ...], lr: float) -> float:
        """One optimizer step in training mode; the loss before it."""

    @abc.abstractmethod
    def differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        """The forward and backward pass of `step` alone, for its time: the loss; gradients stay on the device.

        Trained weights and the optimizer's state stay as they are; running statistics may move.
        """

    @abc.abstractmethod
    def gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients by weight name in training mode; no weight, state or running statistic changes."""

    @abc.abstractmethod
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, in inference mode, in the form that Graph.output describes."""

    @abc.abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """Copies, float32, under canonical names and in canonical layouts."""

    @abc.abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the optimizer keeps between steps, in canonical layouts, so that any framework continues it.

        sgd "v/<weight name>" float32; adamw "m/<weight name>", "s/<weight name>" float32 and "t" int64. Empty before
        the first step, and for sgd without momentum. What a framework keeps beyond these, others ignore.
        """

    @abc.abstractmethod
    def load(self, weights: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None) -> None:
        """Continue from `weights` and `state` (None: a fresh optimizer)."""

    def parameters(self) -> int:
        """Numbers that training fits: of a graph, as it says itself."""
        return parameter_count(self._graph)

    @abc.abstractmethod
    def wait(self) -> None:
        """Return when the device has finished."""

    def memory(self) -> int | None:
        """Bytes held on the device at most so far; None on the CPU, where the process's memory tells, or if unknown."""
        return None

    @staticmethod
    @abc.abstractmethod
    def versions() -> dict[str, str]:
        """What a record keeps: the framework's version, its compute libraries, the device."""

    def _check(self, images: np.ndarray, targets: tuple[np.ndarray, ...] | None = None) -> None:
        """Raise ValueError for images, in the framework's layout, or targets that the model does not take."""
        nhwc = images if self.layout == "NHWC" or images.ndim != 4 else images.transpose(0, 2, 3, 1)
        locations = check_images(self._graph, nhwc, self._sizes)
        if targets is not None:
            check_targets(self._graph, self._loss, targets, nhwc, locations)
            if len(images) % self._accumulate:
                raise ValueError(
                    f"accumulate is {self._accumulate}, but {len(images)} images are no multiple of it, so that they "
                    f"do not divide into as many micro-batches"
                )

    def _micro_batches(
        self, images: np.ndarray, targets: tuple[np.ndarray, ...]
    ) -> list[tuple[np.ndarray, tuple[np.ndarray, ...], float]]:
        """`accumulate` equal parts of a batch, and what share the loss of each has in the loss of the batch."""
        count = self._accumulate
        if count == 1:
            return [(images, targets, 1.0)]
        parts = list(zip(np.split(images, count), zip(*(np.split(target, count) for target in targets))))
        divisors = self._sum_of_workers(np.array([divisor(self._loss, truth) for _, truth in parts]))
        if self._loss["name"] == "detection":  # which divides by 1 where there is no object
            shares = np.maximum(divisors, 1) / max(divisors.sum(), 1)
        else:
            shares = divisors / (divisors.sum() or 1)
        return [(part, truth, float(share)) for (part, truth), share in zip(parts, shares)]

    def _sum_of_workers(self, numbers: np.ndarray) -> np.ndarray:
        """Float64 numbers, each summed over all workers."""
        return numbers


def complete_loss(loss: Mapping[str, object], graph: Graph) -> dict[str, object]:
    """`loss` with all its settings.

    Raises ValueError for an unknown name or setting, a value out of range, a loss that does not fit the graph's task,
    class weights that are not one per class, and an ignore label that is a class.
    """
    full = _complete("loss", {key: value for key, value in loss.items() if key != "soft"}, LOSSES)
    name = full["name"]
    full["soft"] = loss.get("soft", False)
    if full["soft"] and (graph.task, name) != ("classification", "cross_entropy"):
        raise ValueError(f"loss {name!r}: soft targets are for classification by cross_entropy, not for {graph.task}")
    if (name == "detection") != (graph.task == "detection"):
        raise ValueError(f"loss {name!r} does not fit the task {graph.task}; the loss of detection is 'detection'")
    if name == "detection" and full["box"] not in BOX_LOSSES:
        raise ValueError(f"loss 'detection': unknown box {full['box']!r}; {suggest(str(full['box']), BOX_LOSSES)}")
    if full.get("ignore", 0) is None:
        full["ignore"] = 255 if graph.task == "segmentation" else -1
    if "ignore" in full and (type(full["ignore"]) is not int or 0 <= full["ignore"] < graph.classes):
        raise ValueError(
            f"loss {name!r}: ignore is {full['ignore']!r}; it must be an integer that is none of the classes 0 to "
            f"{graph.classes - 1}"
        )
    if isinstance(full.get("class_weights"), str):
        raise ValueError(
            f"loss {name!r}: class_weights is {full['class_weights']!r}; expected a number for each class, or, in a "
            f"study, balanced"
        )
    if full.get("class_weights") is not None:
        weights = np.asarray(full["class_weights"], dtype=np.float64)
        if weights.shape != (graph.classes,) or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(
                f"loss {name!r}: class_weights are {full['class_weights']}; there must be one non-negative number for "
                f"each of the {graph.classes} classes"
            )
        full["class_weights"] = tuple(weights.tolist())
    return full


def check_accumulate(accumulate: int, loss: str, where: str = "") -> None:
    """Raise ValueError for a number of micro-batches that is none, or that the loss of this name cannot have."""
    if type(accumulate) is not int or accumulate < 1:
        raise ValueError(f"{where}accumulate is {accumulate!r}, expected a whole number of at least 1")
    if accumulate > 1 and loss in ("dice", "cross_entropy_dice"):
        raise ValueError(
            f"{where}accumulate is {accumulate}, but the loss {loss!r} is a ratio of sums over the whole batch, to "
            f"which micro-batches do not add up; use cross_entropy or focal, or accumulate 1"
        )


def divisor(loss: Mapping[str, object], targets: tuple[np.ndarray, ...]) -> float:
    """What the loss (settings complete; not dice) is divided by for these targets: 0 where there are none."""
    if loss["name"] == "detection":
        return float(np.count_nonzero(targets[0] >= 0))
    if loss["soft"]:
        return float((targets[0] * np.array(loss["class_weights"] or 1.0)).sum())
    kept = targets[0][targets[0] != loss["ignore"]]
    of_class = loss.get("class_weights")
    return float(kept.size if of_class is None else np.bincount(kept, minlength=len(of_class)) @ np.array(of_class))


def complete_optimizer(optimizer: Mapping[str, object]) -> dict[str, object]:
    """`optimizer` with all its settings; ValueError for an unknown name or setting or a value out of range."""
    full = _complete("optimizer", optimizer, OPTIMIZERS)
    if full["name"] == "sgd" and full["nesterov"] and full["momentum"] == 0:
        raise ValueError("optimizer 'sgd': nesterov needs a momentum above 0")
    clip = full["clip"]
    if clip is not None:
        if isinstance(clip, bool) or not isinstance(clip, (int, float)) or not 0 < clip < math.inf:
            raise ValueError(f"optimizer {full['name']!r}: clip is {clip!r}; it must be a positive number or null")
        full["clip"] = float(clip)
    return full


def _complete(what: str, given: Mapping[str, object], table: dict[str, dict[str, object]]) -> dict[str, object]:
    name = given.get("name")
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; {suggest(str(name), table)}")
    for key, value in given.items():
        if key != "name" and key not in table[name]:
            raise ValueError(f"{what} {name!r}: unknown setting {key!r}; {suggest(key, table[name])}")
        if isinstance(table[name].get(key), bool) and not isinstance(value, bool):
            raise ValueError(f"{what} {name!r}: {key} is {value!r}; it must be true or false")
        if key in _RANGES:
            low, high = _RANGES[key]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < high:
                raise ValueError(f"{what} {name!r}: {key} is {value!r}; it must be a number in [{low}, {high})")
    return {"name": name, **table[name], **given}


def check_state(
    state: Mapping[str, np.ndarray] | None,
    optimizer: Mapping[str, object],
    weights: Mapping[str, np.ndarray],
    fitted: Collection[str] | None = None,
) -> tuple[str, ...]:
    """The parts that the optimizer (settings complete) keeps of every trained weight: ("v",), ("m", "s") or ().

    fitted  names of the trained weights; None: as a graph's names tell
    Raises ValueError when `state`, neither None nor empty, lacks one of them or "t", or has one in another shape.
    """
    if optimizer["name"] == "adamw":
        parts: tuple[str, ...] = ("m", "s")
    else:
        parts = ("v",) if optimizer["momentum"] else ()
    if state and optimizer["name"] == "adamw" and "t" not in state:
        raise ValueError("state of optimizer 'adamw': 't', the number of steps taken, is missing")
    for name in filter(trained, weights) if fitted is None else fitted:
        for part in parts if state else ():
            kept = state.get(f"{part}/{name}")
            if kept is None or kept.shape != weights[name].shape:
                got = "missing" if kept is None else f"of shape {kept.shape}"
                raise ValueError(
                    f"state of optimizer {optimizer['name']!r}: '{part}/{name}' is {got}; "
                    f"expected shape {weights[name].shape}"
                )
    return parts


def skips_before(layer: Conv, channels: int) -> bool:
    """Whether PyTorch and TensorFlow take every stride-th pixel before this convolution, not in it.

    oneDNN, which computes for both on the CPU, writes beyond its memory in the gradient of a strided 1 x 1 convolution
    with channels last where these are fewer than a vector's 16 numbers: a crash, a hang or wrong numbers
    (uxlfoundation/oneDNN, issue 6035). The result is the same.
    """
    return layer.kernel == 1 and layer.stride > 1 and layer.pad == 0 and channels < 16


def check_arithmetic(device: str, precision: str, threads: int) -> None:
    """Raise ValueError for a device, precision or number of threads that no framework knows."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; {suggest(device, ('cpu', 'cuda'))}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"unknown precision {precision!r}; {suggest(precision, ('float32', 'bfloat16'))}")
    if threads < 1:
        raise ValueError(f"threads is {threads}; a framework needs at least 1")


def check_images(graph: Graph | OwnModel, images: np.ndarray, known: dict[tuple[int, int], int | None]) -> int | None:
    """The number of locations of detection images, else None.

    Raises ValueError unless images are float32 (n, rows, cols, bands), n at least 1, of a size that the graph takes.
    `known` is the caller's memory of sizes already looked at; it starts as {}.
    """
    if images.ndim != 4 or images.shape[3] != graph.bands or images.dtype != np.float32 or not len(images):
        raise ValueError(
            f"images have shape {images.shape} and dtype {images.dtype}; expected float32 (n, rows, cols, "
            f"{graph.bands}) with n at least 1"
        )
    size = images.shape[1:3]
    if size not in known:
        output = shapes(graph, *size)[graph.output]
        known[size] = output[0] if graph.task == "detection" else None
    return known[size]


def check_targets(
    graph: Graph, loss: dict[str, object], targets: tuple[np.ndarray, ...], images: np.ndarray, locations: int | None
) -> None:
    """Raise ValueError unless `targets` have the shapes, dtypes and values that the loss takes for these images."""
    n, rows, cols, _ = images.shape
    if loss["soft"]:
        _check_shares(targets, (n, graph.classes))
        return
    expected: list[tuple[tuple[int, ...], type]] = [((n,), np.int32)]
    ignore = loss.get("ignore")
    lowest = 0
    if graph.task == "segmentation":
        expected = [((n, rows, cols), np.int32)]
    elif graph.task == "detection":
        expected = [((n, locations), np.int32), ((n, locations, 4), np.float32)]
        lowest = -2
    if len(targets) != len(expected):
        raise ValueError(f"{graph.task} takes {len(expected)} target arrays; got {len(targets)}")
    for target, (shape, dtype) in zip(targets, expected):
        if target.shape != shape or target.dtype != dtype:
            raise ValueError(
                f"targets have shape {target.shape} and dtype {target.dtype}; expected {shape} {np.dtype(dtype)}"
            )
    wrong = (targets[0] < lowest) | (targets[0] >= graph.classes)
    if ignore is not None:
        wrong &= targets[0] != ignore
    if wrong.any():
        raise ValueError(
            f"targets hold the class {targets[0][wrong][0]}; classes are 0 to {graph.classes - 1}"
            + (f" and {ignore} to ignore" if ignore is not None else ", -1 background and -2 ignore")
        )


def _check_shares(targets: tuple[np.ndarray, ...], shape: tuple[int, int]) -> None:
    """Raise ValueError unless `targets` are one array of `shape` (n, classes) whose rows are shares of 1."""
    found = [f"{target.shape} {target.dtype}" for target in targets]
    if found != [f"{shape} float32"]:
        raise ValueError(f"soft targets are {', '.join(found)}; expected one array, {shape} float32")
    wrong = np.flatnonzero(~(np.abs(targets[0].sum(axis=1) - 1) <= 1e-4) | (targets[0] < 0).any(axis=1))
    if len(wrong):
        raise ValueError(f"soft targets of image {wrong[0]} are {targets[0][wrong[0]].tolist()}; expected shares of 1")
