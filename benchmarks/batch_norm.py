"""How far batch norm in training is off on the CPU, against float64, at the size of AASIST's first block; and its time.

    python -m benchmarks.batch_norm [--batch_size 24] [--channels 32] [--threads 1 2]

torch's own on contiguous and on channels_last maps, and ours on channels_last ones, whose layout makes convolutions
fast. Maps are 23 bands by 21,490 moments, drawn at random, as is the gradient from above. Errors are relative:
the greatest of the channels for the running variance, the length of the difference for gradients. Channels do not
depend on each other: with fewer of them it is quicker, and the errors are of the same kind.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from benchmarks.measuring import machine_text
from models.batch_norm import BatchNorm2d

BANDS, MOMENTS = 23, 21_490


def passed(norm: nn.Module, maps: Tensor, upstream: Tensor) -> tuple[dict[str, Tensor], float]:
    """Take one step of training through `norm`; return what it leaves behind, and the seconds."""
    given = maps.detach().requires_grad_()
    start = time.perf_counter()
    norm(given).backward(upstream)
    seconds = time.perf_counter() - start
    assert given.grad is not None
    left = {"variance": norm.get_buffer("running_var"), "of input": given.grad}
    left |= {f"of {name}": parameter.grad for name, parameter in norm.named_parameters() if parameter.grad is not None}
    return left, seconds


def expected(maps: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """Return the same of torch's own in float64, channel by channel, so that memory suffices."""
    found: dict[str, list[Tensor]] = {}
    for channel in range(maps.shape[1]):
        norm = nn.BatchNorm2d(1, momentum=1.0).double()
        one = slice(channel, channel + 1)
        left, _ = passed(norm, maps[:, one].double().contiguous(), upstream[:, one].double().contiguous())
        for name, value in left.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(parts, dim=1 if name == "of input" else 0) for name, parts in found.items()}


def error(name: str, found: Tensor, exact: Tensor) -> float:
    """Return how far `found` is off, as the module says."""
    if name == "variance":
        return float(((found.double() - exact) / exact).abs().max())
    return float((found.double() - exact).norm() / exact.norm())


def main() -> None:
    """Print a line for each kind and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=24)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    command = parser.parse_args()
    print(machine_text())
    generator = torch.Generator().manual_seed(1)
    size = (command.batch_size, command.channels, BANDS, MOMENTS)
    maps = torch.randn(size, generator=generator).mul_(1.3).add_(0.4)
    upstream = torch.randn(size, generator=generator)
    exact = expected(maps, upstream)
    print(f"maps {' x '.join(map(str, size))}: {maps.numel() // command.channels:,} places a channel")
    errors = "".join(f"{name:>11}" for name in exact)
    print(f"{'':<24}{'threads':>8}{errors}{'seconds':>10}")
    kinds = (
        ("torch, contiguous", nn.BatchNorm2d, torch.contiguous_format),
        ("torch, channels_last", nn.BatchNorm2d, torch.channels_last),
        ("ours, channels_last", BatchNorm2d, torch.channels_last),
    )
    for threads in command.threads:
        torch.set_num_threads(threads)
        for title, kind, layout in kinds:
            laid_out = [tensor.contiguous(memory_format=layout) for tensor in (maps, upstream)]
            left, seconds = passed(kind(command.channels, momentum=1.0), laid_out[0], laid_out[1])
            told = "".join(f"{error(name, left[name], exact[name]):>11.1e}" for name in exact)
            print(f"{title:<24}{threads:>8}{told}{seconds:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
