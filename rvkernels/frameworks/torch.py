"""PyTorch: channels-last, torch.optim, optional bfloat16 autocast and torch.compile."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import pickle
import re
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as functional
from torch import nn

from rvkernels import own_model
from rvkernels import weights as weight_files
from rvkernels.codegen import torch_module
from rvkernels.frameworks import Framework as Base
from rvkernels.frameworks import check_state, skips_before
from rvkernels.models import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    GlobalMean,
    Graph,
    Layer,
    Locations,
    MaxPool,
    OwnModel,
    Relu,
    Resize,
    channels,
    inputs_of,
    weight_shapes,
)
from rvkernels.workers import Team

TITLE = "PyTorch"
COLOR = "#d55e00"

# A module's own name of each canonical part.
_PARTS = {"weight": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "variance": "running_var"}
# torch.optim's name of each canonical part of the optimizer's state.
_STATES = {"v": "momentum_buffer", "m": "exp_avg", "s": "exp_avg_sq"}


class Framework(Base):
    """One model in PyTorch; the contract is frameworks/__init__.py.

    Deterministic on the CPU for a number of threads. An array of images that NumPy may not write to is copied, others
    are read in place.
    """

    def __init__(
        self,
        graph: Graph | OwnModel,
        weights: dict[str, np.ndarray],
        loss: dict,
        optimizer: dict,
        *,
        device: str = "cpu",
        threads: int = 1,
        precision: str = "float32",
        compile: bool = False,
        accumulate: int = 1,
        team: Team | None = None,
    ) -> None:
        super().__init__(
            graph, loss, optimizer, device=device, threads=threads, precision=precision, accumulate=accumulate
        )
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device 'cuda': PyTorch {torch.__version__} finds no CUDA device; use device 'cpu'")
        self._device = torch.device(device)
        self._autocast = precision == "bfloat16"
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        if device == "cuda":
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
        else:
            # Filling memory that every operation overwrites would cost time and change no result.
            torch.utils.deterministic.fill_uninitialized_memory = False
            # The same as use_deterministic_algorithms, which however imports torch's compiler: seconds at every start.
            torch.set_deterministic_debug_mode("error")

        if isinstance(graph, OwnModel):
            torch.manual_seed(int(weights.get("seed", 0)))
        network = _own_network(graph) if isinstance(graph, OwnModel) else Network(graph)
        if team is not None:
            _join(team, self._device)
            network = _synchronised(network, self._device)
        self._team = team
        self._module = network.to(self._device, memory_format=torch.channels_last)
        self._tensors = self._module.tensors()
        self._fitted = {name: tensor for name, tensor in self._tensors.items() if tensor.requires_grad}
        self._forward = _compiled(self._module, self._device) if compile else self._module
        self._trained = self._forward
        if team is not None:
            # Running statistics are the same everywhere, and an own model may leave a parameter unused.
            self._trained = nn.parallel.DistributedDataParallel(
                self._module, forward_sync_buffers=False, find_unused_parameters=isinstance(graph, OwnModel)
            )
        self._class_weights = None
        if self._loss.get("class_weights") is not None:
            self._class_weights = torch.tensor(self._loss["class_weights"], dtype=torch.float32, device=self._device)
        self._stepped = False
        self._draw_apart()
        if set(weights) != {"seed"}:
            self.load(weights)

    def step(self, images: np.ndarray, targets: tuple[np.ndarray, ...], lr: float) -> float:
        """One optimizer step in training mode; the loss before it."""
        for group in self._updater.param_groups:
            group["lr"] = lr
        self._updater.zero_grad(set_to_none=True)
        loss = self._backward(images, targets)
        if self._optimizer["clip"] is not None:
            _clip([tensor.grad for tensor in self._fitted.values()], self._optimizer["clip"])
        self._updater.step()
        self._stepped = True
        return loss.item()

    def differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        """The forward and backward pass of `step` alone; the loss."""
        self._updater.zero_grad(set_to_none=True)
        return self._backward(images, targets).item()

    def gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients by weight name in training mode; no weight, state or running statistic changes."""
        running = {name: tensor.clone() for name, tensor in self._tensors.items() if name not in self._fitted}
        random = self._random()
        self._updater.zero_grad(set_to_none=True)
        loss = self._backward(images, targets)
        found = {name: _array(tensor.grad) for name, tensor in self._fitted.items()}
        self._updater.zero_grad(set_to_none=True)
        for name, tensor in running.items():
            self._tensors[name].copy_(tensor)
        self._set_random(random)
        return loss.item(), found

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, in inference mode, in the form that Graph.output describes."""
        self._check(images)
        self._module.eval()
        with torch.inference_mode(), self._arithmetic():
            logits = self._forward(self._images(images))
        return _array(logits.float())

    def weights(self) -> dict[str, np.ndarray]:
        """Copies, float32, under canonical names and in canonical layouts; of an own model its state_dict."""
        return {name: _array(tensor) for name, tensor in self._tensors.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the optimizer keeps between steps; see frameworks/__init__.py.

        Beyond the contract "random" with an own model, the state of the generator that its dropout, say, draws from.
        """
        found: dict[str, np.ndarray] = {}
        for name, tensor in self._tensors.items():
            kept = self._updater.state.get(tensor, {})
            for part, own in _STATES.items():
                if kept.get(own) is not None:
                    found[f"{part}/{name}"] = _array(kept[own])
            if "step" in kept:
                found["t"] = np.array(int(kept["step"]), dtype=np.int64)
        if self._stepped and isinstance(self._graph, OwnModel):
            found["random"] = _array(self._random())
        return found

    def load(self, weights: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None) -> None:
        """Continue from `weights` and `state` (None: a fresh optimizer)."""
        weight_files.check_shapes({name: tuple(tensor.shape) for name, tensor in self._tensors.items()}, weights)
        parts = check_state(state, self._optimizer, weights, self._fitted)
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(torch.from_numpy(np.array(weights[name], order="C")))
        self._stepped = bool(state)
        if state and "random" in state:
            self._set_random(torch.from_numpy(np.array(state["random"])))
            self._draw_apart()
        self.__dict__.pop("_updater", None)
        for name, tensor in self._fitted.items():
            if not (state and parts):
                continue
            kept = self._updater.state[tensor]
            for part in parts:
                kept[_STATES[part]] = torch.empty_like(tensor, requires_grad=False).copy_(
                    _tensor(state[f"{part}/{name}"])
                )
            if "t" in state:
                kept["step"] = torch.tensor(float(state["t"]), dtype=torch.float32, device=self._device)

    def parameters(self) -> int:
        """Numbers that training fits."""
        return sum(tensor.numel() for tensor in self._fitted.values())

    def wait(self) -> None:
        """Return when the device has finished."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def memory(self) -> int | None:
        """Bytes of PyTorch's tensors on the GPU at most so far; None on the CPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    @staticmethod
    def versions() -> dict[str, str]:
        """Versions of PyTorch and its compute libraries, and the device."""
        found = {"torch": torch.__version__, "cpu_capability": torch.backends.cpu.get_cpu_capability()}
        onednn = re.search(r"MKL-DNN v(\S+)", torch.__config__.show())
        if onednn:
            found["onednn"] = onednn[1]
        if torch.cuda.is_available():
            found["cuda"] = str(torch.version.cuda)
            found["cudnn"] = str(torch.backends.cudnn.version())
            found["device"] = torch.cuda.get_device_name()
        return found

    @functools.cached_property
    def _updater(self) -> torch.optim.Optimizer:
        """Made when it is first used: torch.optim imports torch._dynamo, seconds that a prediction need not wait."""
        fitted, decay = self._fitted.values(), self._optimizer["weight_decay"]
        groups = [
            # Of a graph those whose names end in .weight.
            {"params": [tensor for tensor in fitted if tensor.ndim > 1], "weight_decay": decay},
            {"params": [tensor for tensor in fitted if tensor.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if self._optimizer["name"] == "sgd":
            momentum, nesterov = self._optimizer["momentum"], self._optimizer["nesterov"]
            return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)
        betas = (self._optimizer["beta1"], self._optimizer["beta2"])
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=self._optimizer["eps"], fused=True)

    def _backward(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> torch.Tensor:
        """The loss in training mode; leaves gradients in the parameters and moves the running statistics."""
        self._check(images, targets)
        self._module.train()
        *before, last = self._micro_batches(images, targets)
        total = torch.zeros((), device=self._device)
        with contextlib.nullcontext() if self._team is None else self._trained.no_sync():
            for part in before:
                total += self._add_gradients(*part)
        total += self._add_gradients(*last)  # DistributedDataParallel averages what all parts have left
        for tensor in self._fitted.values():
            if tensor.grad is None:  # an own model may leave a parameter unused
                tensor.grad = torch.zeros_like(tensor)
        return total

    def _add_gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...], share: float) -> torch.Tensor:
        """Add the gradients of a micro-batch to those in the parameters; its part of the loss."""
        with self._arithmetic():
            logits = self._trained(self._images(images))
        moved = [torch.from_numpy(target).to(self._device) for target in targets]
        summed = _same if self._team is None else _SumOfAll.apply
        workers = 1 if self._team is None else self._team.count
        if self._graph.task == "detection":
            loss = _detection(logits.float(), moved[0], moved[1], self._loss, summed)
        else:
            loss = _classes(logits.float(), moved[0], self._loss, self._class_weights, summed, workers)
        (loss * (workers * share)).backward()  # DistributedDataParallel takes the mean of the workers' gradients
        return share * summed(loss.detach())

    def _sum_of_workers(self, numbers: np.ndarray) -> np.ndarray:
        if self._team is None:
            return numbers
        total = torch.from_numpy(numbers).to(self._device)
        torch.distributed.all_reduce(total)
        return _array(total)

    def _random(self) -> torch.Tensor:
        """State of the generator that dropout on the device draws from."""
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _set_random(self, state: torch.Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)

    def _draw_apart(self) -> None:
        """Let other workers than the first draw other numbers: an own model's dropout, say, leaves out other places."""
        if self._team is not None and not self._team.first:
            torch.manual_seed(int(torch.randint(2**62, ())) + self._team.rank)

    def _images(self, images: np.ndarray) -> torch.Tensor:
        """(n, bands, rows, cols), channels-last in memory: a view of `images` on the CPU."""
        if not (images.flags.writeable and images.flags.c_contiguous):
            images = np.array(images, order="C")
        return torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)

    def _arithmetic(self) -> contextlib.AbstractContextManager:
        if self._autocast:
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def launch(count: int, command: Sequence[str]) -> dict[int, int]:
    """Run `command` as `count` workers on this machine, as torchrun does; exit status of those that failed by rank."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it returns is told
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    return {}


def _join(team: Team, device: torch.device) -> None:
    """Connect the workers for PyTorch's collective operations: NCCL between GPUs, gloo between processors."""
    if torch.distributed.is_initialized():
        return
    host, _, port = team.addresses[0].rpartition(":")
    store = torch.distributed.TCPStore(host, int(port), team.count, is_master=team.first)
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=team.rank, world_size=team.count)
    atexit.register(torch.distributed.destroy_process_group)


class _SumOfAll(torch.autograd.Function):
    """The sum of a tensor over all workers; what it is worth to each of their losses comes back to each."""

    @staticmethod
    def forward(context: object, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def _same(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over one worker."""
    return tensor


def _synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` with batch norms that take the statistics of the batches of all workers."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, _BatchNormOfAll(child))
        else:
            _synchronised(child, device)
    return module


class _BatchNormOfAll(nn.modules.batchnorm._BatchNorm):
    """What nn.SyncBatchNorm is to GPUs, for processors: `norm`, its tensors kept, over the batches of all workers."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(self, name, buffer)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of axes."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        axes, shape = [0, *range(2, input.ndim)], [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        here = x.new_full((1,), x.numel() / x.shape[1])
        total = _SumOfAll.apply(torch.cat([x.sum(axes), here]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = x - mean.view(shape)
        # In a second pass: the mean of squares less the square of the mean would lose the digits of a small variance.
        variance = _SumOfAll.apply(centred.square().sum(axes)) / count
        if self.running_mean is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


class Network(nn.Module):
    """A graph as a module: images (n, bands, rows, cols) -> logits in the form that Graph.output describes.

    The forward pass is a loop over a plan made once, (slots read, slot written, slots to clear) of each module, where a
    slot is cleared after its last reader so that inference keeps no more feature maps than it needs.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        into = channels(graph)
        slots = {name: slot for slot, name in enumerate(into)}
        readers = [name for layer in graph.layers for name in inputs_of(layer)]
        kinds = {layer.name: layer for layer in graph.layers}
        last = {name: i for i, layer in enumerate(graph.layers) for name in inputs_of(layer)}
        self._names = [layer.name for layer in graph.layers]
        self._shapes = weight_shapes(graph)
        self.operations = nn.ModuleList()
        self._plan: list[tuple[list[int], int, list[int]]] = []
        for i, layer in enumerate(graph.layers):
            source = kinds.get(inputs_of(layer)[0])
            # The gradients of these do not need their own output, so a ReLU that alone reads it may overwrite it.
            in_place = isinstance(source, (Conv, ConvTranspose, BatchNorm, Add)) and readers.count(source.name) == 1
            self.operations.append(_operation(layer, into[inputs_of(layer)[0]], in_place))
            read = [slots[name] for name in inputs_of(layer)]
            clear = [slots[name] for name in set(inputs_of(layer)) if last[name] == i]
            self._plan.append((read, slots[layer.name], clear))
        self._slots = len(slots)
        self._output = slots[graph.output]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values: list[torch.Tensor | None] = [None] * self._slots
        values[0] = images
        for operation, (read, write, clear) in zip(self.operations, self._plan):
            values[write] = operation(*[values[slot] for slot in read])
            for slot in clear:
                values[slot] = None
        logits = values[self._output]
        return logits.permute(0, 2, 3, 1) if logits.ndim == 4 else logits

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and running statistics by canonical name."""
        operations = dict(zip(self._names, self.operations))
        found = {}
        for name in self._shapes:
            layer, part = name.rsplit(".", 1)
            found[name] = getattr(operations[layer], _PARTS[part])
        return found


class OwnNetwork(nn.Module):
    """A user's module behind the face of a Network: logits with the classes last, weights as in its state_dict."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.module(images)
        if not isinstance(logits, torch.Tensor):
            raise TypeError(f"the module gives {type(logits).__name__}, expected a tensor of logits")
        return logits.permute(0, 2, 3, 1) if logits.ndim == 4 else logits

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by their own names."""
        entries = self.module.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in entries.items() if isinstance(tensor, torch.Tensor)}


def _own_network(model: OwnModel) -> OwnNetwork:
    return OwnNetwork(own_model.make(model, "torch", nn.Module))


class _GlobalMean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class _Add(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class _Concat(nn.Module):
    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        return torch.cat(maps, dim=1)


class _Locations(nn.Module):
    def forward(self, *levels: torch.Tensor) -> torch.Tensor:
        return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], dim=1)


class _Skipping(nn.Conv2d):
    """A 1 x 1 convolution of every `every`-th pixel."""

    def __init__(self, into: int, filters: int, every: int, bias: bool) -> None:
        super().__init__(into, filters, 1, bias=bias)
        self._every = every

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:, :, :: self._every, :: self._every])


def _operation(layer: Layer, into: int, in_place: bool) -> nn.Module:
    if isinstance(layer, Conv) and skips_before(layer, into):
        return _Skipping(into, layer.filters, layer.stride, layer.bias)
    if isinstance(layer, Conv):
        return nn.Conv2d(into, layer.filters, layer.kernel, layer.stride, layer.pad, bias=layer.bias)
    if isinstance(layer, ConvTranspose):
        return nn.ConvTranspose2d(into, layer.filters, layer.kernel, layer.stride, bias=layer.bias)
    if isinstance(layer, BatchNorm):
        return nn.BatchNorm2d(into, eps=1e-5, momentum=0.1)
    if isinstance(layer, Relu):
        return nn.ReLU(inplace=in_place)
    if isinstance(layer, MaxPool):
        return nn.MaxPool2d(layer.kernel, layer.stride, layer.pad)
    if isinstance(layer, AveragePool):
        return nn.AvgPool2d(layer.kernel, layer.stride, layer.pad, count_include_pad=True)
    if isinstance(layer, GlobalMean):
        return _GlobalMean()
    if isinstance(layer, Resize):
        align = False if layer.method == "bilinear" else None
        return nn.Upsample(scale_factor=float(layer.factor), mode=layer.method, align_corners=align)
    if isinstance(layer, Add):
        return _Add()
    if isinstance(layer, Concat):
        return _Concat()
    if isinstance(layer, Dense):
        return nn.Linear(into, layer.filters, bias=layer.bias)
    if isinstance(layer, Locations):
        return _Locations()
    raise TypeError(f"no operation for {type(layer).__name__}")


def _compiled(module: nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """`module` through torch.compile; ValueError when a first, trivial compilation fails (no C++ compiler, say)."""
    try:
        # Importing the compiler warns about deprecated parts of PyTorch itself.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.compile(lambda x: x * 2 + 1, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # the compiler behind torch.compile documents no class of errors
        reason = str(error).strip().splitlines()[0]
        if " " in torch.__file__:
            reason = f"it cannot link PyTorch's libraries in a folder whose path holds a space ({reason})"
        raise ValueError(f"compile is asked for, but torch.compile does not work on this machine: {reason}") from error
    return torch.compile(module, dynamic=False)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A float32 copy."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A C-contiguous NumPy copy."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def _clip(gradients: list[torch.Tensor], clip: float) -> None:
    """In place, and without waiting for the device."""
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, clip / norm.clamp(min=clip))


def _classes(
    logits: torch.Tensor,
    targets: torch.Tensor,
    loss: dict[str, object],
    weights: torch.Tensor | None,
    summed: Callable[[torch.Tensor], torch.Tensor],
    workers: int,
) -> torch.Tensor:
    """The losses of classification and segmentation: logits (..., classes), targets (...), or soft ones (n, classes).

    One worker's part: with `summed`, the sum over all `workers`, the parts add up to the loss of the whole batch.
    """
    if loss["soft"]:
        return _soft_cross_entropy(logits, targets, loss, weights, summed)
    classes = logits.shape[-1]
    logits = logits.reshape(-1, classes)
    targets = targets.reshape(-1).long()
    name = loss["name"]
    total = logits.new_zeros(())
    if name in ("cross_entropy", "cross_entropy_dice"):
        total = total + _cross_entropy(logits, targets, loss, weights, summed)
    if name in ("dice", "cross_entropy_dice"):
        total = total + _dice(logits, targets, loss["ignore"], summed) / workers
    if name == "focal":
        keep = targets != loss["ignore"]
        log_p = functional.log_softmax(logits, dim=-1).gather(1, targets.where(keep, 0)[:, None])[:, 0]
        each = -((-torch.expm1(log_p)) ** loss["gamma"]) * log_p
        total = total + (each * keep).sum() / summed(keep.sum()).clamp(min=1)
    return total


def _cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    loss: dict[str, object],
    weights: torch.Tensor | None,
    summed: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    total = functional.cross_entropy(
        logits,
        targets,
        weight=weights,
        ignore_index=loss["ignore"],
        label_smoothing=loss["label_smoothing"],
        reduction="sum",
    )
    keep = targets != loss["ignore"]
    if weights is None:
        return total / summed(keep.sum()).clamp(min=1)
    mass = summed((weights[targets.where(keep, 0)] * keep).sum())
    return total / mass.where(mass > 0, 1.0)


def _soft_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    loss: dict[str, object],
    weights: torch.Tensor | None,
    summed: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    total = functional.cross_entropy(
        logits, targets, weight=weights, label_smoothing=loss["label_smoothing"], reduction="sum"
    )
    mass = summed((targets if weights is None else targets * weights).sum())
    return total / mass.where(mass > 0, 1.0)


def _dice(
    logits: torch.Tensor, targets: torch.Tensor, ignore: int, summed: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The whole batch's, in every worker."""
    keep = targets != ignore
    truth = functional.one_hot(targets.where(keep, 0), logits.shape[-1]) * keep[:, None]
    p = functional.softmax(logits, dim=-1) * keep[:, None]
    overlap, size = summed((p * truth).sum(0)), summed(p.sum(0) + truth.sum(0))
    return 1 - ((2 * overlap + 1) / (size + 1)).mean()


def _detection(
    logits: torch.Tensor,
    labels: torch.Tensor,
    distances: torch.Tensor,
    loss: dict[str, object],
    summed: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """logits (n, locations, classes + 4), labels (n, locations), distances (n, locations, 4). One worker's part."""
    scores, raw = logits[..., :-4], logits[..., -4:]
    truth = (labels[..., None] == torch.arange(scores.shape[-1], device=labels.device)).to(scores.dtype)
    sign = 2 * truth - 1
    log_p = functional.logsigmoid(sign * scores)  # of the right answer
    alpha = 0.75 - 0.5 * truth  # 0.25 for an object, 0.75 for background
    focal = -alpha * torch.expm1(log_p) ** 2 * log_p
    total = (focal * (labels != -2)[..., None]).sum()

    objects = labels >= 0
    found, wanted = functional.softplus(raw[objects]), distances[objects]
    if loss["box"] in ("giou", "giou_l1"):
        total = total + loss["box_weight"] * (1 - _giou(found, wanted)).sum()
    if loss["box"] in ("l1", "giou_l1"):
        total = total + loss["box_weight"] * (found - wanted).abs().mean(dim=-1).sum()
    return total / summed(objects.sum()).clamp(min=1)


def _giou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Generalised IoU (Rezatofighi et al. 2019) of boxes about one centre, as distances (top, left, bottom, right)."""

    def area(d: torch.Tensor) -> torch.Tensor:
        return (d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3])

    overlap = area(torch.minimum(a, b))
    union = area(a) + area(b) - overlap
    hull = area(torch.maximum(a, b))
    return overlap / union - (hull - union) / hull


def _export(graph: Graph, weights: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """weights.pt, a state_dict, and model.py with the `Model` that it belongs to."""
    source, attributes = torch_module(graph, taken=dir(nn.Module))
    state = {}
    for name in weight_shapes(graph):
        layer, part = name.rsplit(".", 1)
        state[f"{attributes[layer]}.{_PARTS[part]}"] = _tensor(weights[name])
        if part == "variance":
            state[f"{attributes[layer]}.num_batches_tracked"] = torch.tensor(0)
    (folder / "model.py").write_text(source)
    torch.save(state, folder / "weights.pt")
    return [folder / "model.py", folder / "weights.pt"]


EXPORTS = {"torch": _export}


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a .pt or .pth file by name; those under "state_dict" or "model" where it holds more than weights.

    Raises ValueError naming the file when it is no state_dict or cannot be read without running code in it.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: not a state_dict that torch.load reads with weights_only=True: {reason}") from None
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"{path}: not a state_dict: expected tensors by name, or these under 'state_dict' or 'model'")
    return {
        name: _array(value.float()) if value.is_floating_point() else _array(value) for name, value in found.items()
    }
