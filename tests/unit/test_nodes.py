"""The node of a lost trial: remembered, and named once it has lost another."""

from datetime import timedelta

import pytest

from autotuner.backends.kubernetes.assess import PodStatus, assess
from autotuner.study.endings.log_errors import ProcessLog
from autotuner.study.endings.outcome import Ending, node_of
from autotuner.study.ledger import decode_trial, encode_trial
from autotuner.trial import Outcome
from autotuner.wording import node_warnings
from tests.builders import NOON, trial
from tests.unit.running_trial import START, Cluster
from tests.unit.test_assess import ENDED, FAILED, MASTER, NOW, PATIENCE, WORKER, died


def lost(number, node="gpu-7", **changed):
    return trial(number, (0.5,), Outcome.LOST, node=node, **changed)


def test_a_node_that_lost_a_trial_again_is_named():
    assert node_warnings([lost(0)]) == []
    assert node_warnings([lost(0), lost(1, node="gpu-8")]) == []
    (warning,) = node_warnings([lost(3), trial(2), lost(0), lost(1, node="gpu-8")])
    assert warning == "node gpu-7 has lost 2 trials (0, 3): check it, or cordon it"


def test_losses_before_a_retry_are_of_the_past():
    before, after = lost(0, minutes=10), lost(1, minutes=50)
    assert node_warnings([before, after], NOON + timedelta(minutes=20)) == []


def test_many_bad_nodes_make_a_bounded_number_of_warnings():
    trials = [lost(number, node=f"gpu-{number % 20}") for number in range(60)]
    assert len(node_warnings(trials)) == 5


def test_the_node_is_in_the_ledger():
    assert decode_trial(encode_trial(lost(0))).node == "gpu-7"
    assert "node" not in encode_trial(trial(0))


def test_the_node_is_that_of_the_log_that_names_the_cause():
    healthy = ProcessLog(
        "torch.distributed.DistBackendError: NCCL error: remote process exited", 1, "p0", "gpu-1"
    )
    broken = ProcessLog("RuntimeError: CUDA error: uncorrectable ECC error encountered", 1, "p1", "gpu-7")
    assert node_of(Ending(1, logs=(healthy, broken))) == "gpu-7"


@pytest.mark.parametrize(
    ("disruption", "node"),
    [
        ("DeletionByTaintManager: node is not ready", "gpu-7"),
        ("NodeLost: the kubelet stopped answering", "gpu-7"),
        ("PreemptionByScheduler: room", ""),
        ("EvictionByEvictionAPI: drain", ""),
    ],
)
def test_a_disruption_blames_the_node_unless_others_wanted_its_place(disruption, node):
    pod: PodStatus = died(MASTER, 143, disruption=disruption, node="gpu-7")
    standing = assess(FAILED, [pod, WORKER], NOW, PATIENCE)
    assert standing.ending is not None
    assert node_of(standing.ending) == node
    assert standing.ended_at == ENDED


class Broken(Cluster):
    """A cluster whose trial has failed on a node with broken memory."""

    def trial(self):
        failed = {"type": "Failed", "status": "True", "lastTransitionTime": self.now.isoformat()}
        return {**super().trial(), "status": {"conditions": [failed]}}

    def pod(self):
        pod = super().pod()
        ended = {"exitCode": 1, "reason": "Error", "finishedAt": START.isoformat()}
        status = {
            "phase": "Failed",
            "containerStatuses": [{"name": "pytorch", "state": {"terminated": ended}}],
        }
        return {**pod, "spec": {"nodeName": "gpu-7"}, "status": status}


def test_the_backend_tells_the_node_of_a_lost_trial():
    cluster = Broken()
    stamp = f"{START:%Y-%m-%dT%H:%M:%S}.5Z"
    cluster.lines.append(f"{stamp} RuntimeError: CUDA error: uncorrectable ECC error encountered\n")
    cluster.now += timedelta(minutes=5)
    (seen,) = cluster.observe()
    cluster.server.close()
    assert (seen.outcome, seen.node) == (Outcome.LOST, "gpu-7")
    assert "on node gpu-7" in seen.message
