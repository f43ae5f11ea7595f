"""Scripts that know nothing of us run unchanged: plain torch.distributed, and torchrun."""

from __future__ import annotations

import yaml

from tests.end_to_end.programs import Place

# One script for both: each process says who it is, all agree on the sum, and rank 0 reports.
PROGRAM = """
import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
ranks = torch.tensor(2.0 ** dist.get_rank())
dist.all_reduce(ranks)
assert ranks == 2 ** dist.get_world_size() - 1, ranks
if dist.get_rank() == 0:
    print(f"accuracy={1 if dist.get_world_size() == int(os.environ['PROCESSES']) else 0} epoch=5", flush=True)
dist.destroy_process_group()
"""


def test_a_plain_distributed_script_finds_its_peers(place: Place):
    place.environment = {"PROCESSES": "2"}
    ran = place.run("tune", place.write(PROGRAM, workers=1).name, "--json")
    assert ran.code == 0, ran.err


def test_a_torchrun_script_finds_its_peers_on_every_node(place: Place):
    place.environment = {"PROCESSES": "4"}
    file = place.write(PROGRAM, workers=1)
    job = yaml.safe_load(file.read_text())
    job["spec"]["nprocPerNode"] = "2"
    for made in job["spec"]["pytorchReplicaSpecs"].values():
        # No option: torchrun takes all that it needs from the operator's PET_ variables.
        made["template"]["spec"]["containers"][0]["command"] = ["torchrun", "train.py"]
    ran = place.run("tune", place.save(job).name, "--json")
    assert ran.code == 0, ran.err
