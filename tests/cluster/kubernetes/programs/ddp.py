"""Fits a line with DistributedDataParallel over gloo, and reports the loss."""

import os

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """Train."""
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(rank)
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, int(os.environ["STEPS"]) + 1):
        inputs = torch.rand(64, 1)
        loss = torch.nn.functional.mse_loss(model(inputs), 3 * inputs + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distributed.all_reduce(loss)
        if rank == 0:
            mean = loss.item() / world
            print(f"step={step} world={world} loss={mean:.6f}", flush=True)  # noqa: T201 - its log
    distributed.barrier()
    distributed.destroy_process_group()


main()
# Under load, a thread of gloo may outlive the interpreter, which then aborts ("terminate called without
# an active exception"). What is tested here is over by now.
os._exit(0)
