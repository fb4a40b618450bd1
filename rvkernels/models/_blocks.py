"""What several models are made of."""

from __future__ import annotations

from rvkernels.models import BatchNorm, Conv, Layer, Relu


def conv_norm(
    layers: list[Layer], name: str, source: str, filters: int, kernel: int, stride: int = 1, scale_start: float = 1.0
) -> str:
    """Append a convolution with (kernel - 1) / 2 pixels of padding and its batch norm; the name of the norm."""
    layers.append(Conv(name, source, filters, kernel, stride, kernel // 2))
    layers.append(BatchNorm(f"{name}_bn", name, scale_start))
    return layers[-1].name


def conv_norm_relu(layers: list[Layer], name: str, source: str, filters: int, kernel: int, stride: int = 1) -> str:
    """Append `conv_norm` and a ReLU; the name of the ReLU."""
    layers.append(Relu(f"{name}_relu", conv_norm(layers, name, source, filters, kernel, stride)))
    return layers[-1].name


def at_least(model: str, **settings: tuple[int, int]) -> None:
    """Raise ValueError for the first setting (value, lowest) that is no integer or below its lowest value."""
    for name, (value, lowest) in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise ValueError(f"{model}: {name} is {value!r}; it must be an integer of at least {lowest}")
