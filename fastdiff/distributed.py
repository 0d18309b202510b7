"""Work shared by the processes that torchrun started; without torchrun there is one, and everything here is free.

torchrun --nproc-per-node 8 -m fastdiff.cli train cifar10-ddpmpp ...
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
from torch import Tensor
from torch import distributed as dist

#: How long a process waits for the others, who may be loading data.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: which one this is, 0 .. size - 1; device: its own.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that talks and writes."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """This process's contiguous part of range(n): the parts of all ranks in order are the whole."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.size == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def gather(self, tensor: Tensor) -> Tensor | None:
        """[n_0 + n_1 + ..., ...] on the main process, in the order of ranks; None on the others. Each gives [n_i, ...]."""
        if self.size == 1:
            return tensor
        counts = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(tensor)], device=self.device))
        longest = int(max(counts))
        padded = torch.zeros(longest, *tensor.shape[1:], dtype=tensor.dtype, device=self.device)
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)  # gloo gathers to all: the main process alone keeps it
        dist.barrier()  # nobody leaves while others still read
        if not self.is_main:
            return None
        return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)]).to(tensor.device)

    def any(self, flag: bool) -> bool:
        """Whether it is true on any process, the same answer on all."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def working_device(name: str | None = None, index: int | None = None) -> torch.device:
    """A device that is known to work; default: a GPU if there is one.

    Args:
        name: such as "cpu" or "cuda"; index: of the GPU of a process among several.

    Raises:
        ValueError: it does not work here.
    """
    wanted = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        if index is not None and device.type == "cuda":
            device = torch.device("cuda", index)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        where = "" if index is None else f" for process {index}"
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device: expected one that works here{where}, such as cpu, got {wanted!r} ({reason})") from error
    return device


@cache
def world(device: str | None = None) -> World:
    """The processes that torchrun started, joined once: over nccl where each has a GPU, else over gloo.

    Args:
        device: "cpu" or "cuda"; default: a GPU if there is one.

    Raises:
        ValueError: the device does not work here, or there is no GPU for this process.
    """
    rank, size, local = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    place = working_device(device, local if size > 1 else None)
    gpu = place.type == "cuda"
    if gpu:
        torch.cuda.set_device(place)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return World(rank, size, place)
