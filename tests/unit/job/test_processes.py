"""How many processes a job runs, as its manifest says in many ways."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.job.processes import assumed, read_processes, shape
from autotuner.job.processes import mistakes as mistakes_of
from autotuner.job.pytorchjob import devices
from autotuner.spec.values import Shape
from tests.builders import annotations, container, manifest, replica

GPUS = {"limits": {"nvidia.com/gpu": 8}}
ONE = {"limits": {"nvidia.com/gpu": 1}}


def job(
    *command: str,
    args: tuple[str, ...] = (),
    resources: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    workers: int = 0,
    **spec: Any,
) -> dict[str, Any]:
    """Return a job whose replicas all run one command line."""
    made = container(
        command=command or None,
        args=args,
        env=[{"name": name, "value": value} for name, value in (env or {}).items()],
        **({"resources": resources} if resources else {}),
    )
    return manifest(master=replica(made), worker=replica(made, replicas=workers) if workers else None, **spec)


def mistakes(made: dict[str, Any], asked: dict[str, str]) -> list[Mistake]:
    return mistakes_of(read_processes(made), asked)


def limits(**amounts: Any) -> dict[str, Any]:
    return {"limits": amounts}


def shell(script: str, **more: Any) -> dict[str, Any]:
    return job("bash", "-c", script, **more)


def from_others(script: str) -> dict[str, Any]:
    """Return a job with variables that are in another object."""
    made = container(command=("bash", "-c", script), envFrom=[{"configMapRef": {"name": "job"}}])
    return manifest(master=replica(made))


MULTILINE = """
set -ex
pip install deepspeed accelerate   # torchrun --nproc_per_node=3
export NPROC=4
NCCL_DEBUG=INFO OMP_NUM_THREADS=1 exec torchrun \\
    --nproc_per_node=$NPROC --nnodes=$PET_NNODES \\
    train.py --nproc_per_node=7 'it''s' 2>&1 | tee /logs/out.txt
"""
MEGATRON = """
GPUS_PER_NODE=8
DISTRIBUTED_ARGS="--nproc_per_node $GPUS_PER_NODE --nnodes $WORLD_SIZE --node_rank $RANK"
torchrun $DISTRIBUTED_ARGS pretrain.py
"""
ARRAY = """
ARGS=(
  --nproc_per_node 2
  --nnodes ${PET_NNODES}
)
python -m torch.distributed.run "${ARGS[@]}" train.py
"""


CONFIG = """
cat > /tmp/accelerate.yaml <<EOF
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_machines: $PET_NNODES
num_processes: $((PET_NPROC_PER_NODE * PET_NNODES ))
fsdp_config:
  fsdp_offload_params: false
EOF
accelerate launch --config_file /tmp/accelerate.yaml train.py --seed 1
"""
DEFAULT = """
cat > $HF_HOME/accelerate/default_config.yaml <<EOF
distributed_type: MULTI_GPU
num_machines: 1
num_processes: 4
EOF
accelerate launch a.py
"""
SINGLE = """
if [[ $WORLD_SIZE == 1 ]]; then
    time python a.py
    exit 0
fi
accelerate launch --multi_gpu --num_machines $WORLD_SIZE --num_processes $((WORLD_SIZE * 8)) a.py
"""
IF = "if [ {} ]; then torchrun --nproc_per_node=8 a.py; else python a.py; fi"
SPLIT = """
TP=8
DP=$(($PET_NPROC_PER_NODE * $PET_NNODES / $TP))
ARGS="--steps 10
    --accumulation $((1024 / $DP))
    --tensor_parallel_size $TP"
torchrun --nproc_per_node=32 a.py $ARGS
"""


SDK = """
program_path=$(mktemp -d)
read -r -d '' SCRIPT << EOM
def train():
    from accelerate import Accelerator
train()
EOM
printf "%s" "$SCRIPT" > "$program_path/ephemeral_script.py"
torchrun "$program_path/ephemeral_script.py"
"""


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (job("python", "train.py"), 1),
        (job("python", "train.py", resources=GPUS), 1),
        (job("python", "-u", "-m", "package.train", resources=GPUS), 1),
        (job(args=("--backend", "nccl"), resources={"limits": {"nvidia.com/gpu": 1}}), 1),
        (job(), 1),
        (job(args=("torchrun", "--nproc-per-node=2", "train.py"), resources=GPUS), 2),
        # torchrun and its own option, in each of its forms.
        (job("torchrun", "--nproc_per_node=4", "train.py"), 4),
        (job("torchrun", "--nproc-per-node", "4", "train.py"), 4),
        (job("torchrun", "--nproc", "4", "train.py"), 4),
        (shell("torchrun --nproc_per_node=$(expr $N / 2) a.py", env={"N": "8"}), 4),
        # That of a server of generations, beside the training.
        (job("torchrun", "--nproc_per_node=8", "a.py", "--vllm_tensor_parallel_size=4", resources=GPUS), 8),
        # Its number of processes, of pods, or of something else.
        (job("python", "a.py", "--devices=1", "--strategy=ddp", resources=GPUS), 1),
        (job("python", "a.py", "--strategy=auto", resources=GPUS), 1),
        (job("python", "train_x_ray.py", resources=GPUS), 1),
        (job("python", "a.py", "--num_nodes=2708", workers=1), 1),
        (shell("NNODES=$WORLD_SIZE llamafactory-cli train c.yaml", workers=1, resources=ONE), 1),
        (job("axolotl", "train", "c.yaml", resources=ONE), 1),
        (job("torchrun", "--standalone", "--nproc-per-node=4", "train.py"), 4),
        (job("torchrun", "--standalone", "train.py", resources=GPUS), 8),
        (job("torchrun", "--nproc_per_node=gpu", "train.py", resources=GPUS), 8),
        (job("/opt/conda/bin/torchrun", "--nproc_per_node=4", "train.py", "--nproc_per_node=9"), 4),
        (job("python", "-m", "torch.distributed.run", "--nproc_per_node=4", "train.py"), 4),
        (job("python3.11", "-m", "torch.distributed.launch", "--use_env", "--nproc_per_node", "4", "a.py"),
         4),
        (job("torchrun", "--nproc_per_node=4", "train.py", nprocPerNode="4", resources=GPUS), 4),
        # The operator's PET_NPROC_PER_NODE.
        (job("torchrun", "train.py", nprocPerNode="4"), 4),
        (job("torchrun", "train.py", resources=GPUS), 8),
        (job("torchrun", "train.py", nprocPerNode="gpu", resources=GPUS), 8),
        (job("torchrun", "train.py", workers=1, resources={"limits": {"amd.com/gpu": "4"}}), 4),
        (job("torchrun", "a.py", resources={"limits": {"gpu.intel.com/i915": 2}}), 2),
        (job("torchrun", "a.py", resources={"limits": {"habana.ai/gaudi": 8}}), 8),
        (job("torchrun", "a.py", resources={"limits": {"nvidia.com/mig-1g.5gb": 1}}), 1),
        # Memory and cores of a shared GPU are no devices.
        (job("torchrun", "a.py", resources=limits(**{"nvidia.com/gpu": 2, "nvidia.com/gpumem": 3000})), 2),
        (job("torchrun", "a.py", resources=limits(**{"nvidia.com/gpu": 1, "nvidia.com/gpucores": "30"})), 1),
        (job("python", "a.py", "--gpus=1", resources=limits(**{"aliyun.com/gpu-mem": 8})), 1),
        (job("python", "a.py", "--gpus=1", resources=limits(**{"koordinator.sh/gpu": "100"})), 1),
        (job("torchrun", "a.py", resources=limits(**{"huawei.com/ascend-1980": 8})), 8),
        # A model in place of `gpu`, and devices that are none of PyTorch's own.
        (job("torchrun", "a.py", resources=limits(**{"nvidia.com/a100": 4})), 4),
        (job("torchrun", "a.py", resources=limits(**{"nvidia.com/rtxa6000": 2, "nvidia.com/rdma-vf": 8})), 2),
        (job("torchrun", "--nproc_per_node=8", "a.py", resources=limits(**{"enflame.com/gcu": 8})), 8),
        (job("swift", "sft", resources=limits(**{"enflame.com/gcu-memory": 20480})), 1),
        # Words in which the short name of a device is a part: input, output.
        (job("swift", "sft", resources=limits(**{"example.com/input-slots": 4, "x.io/output-memory": 8})), 1),
        (job("deepspeed", "--num_accelerators=2", "a.py", resources=GPUS), 2),
        (job("deepspeed", "--num_gpu", "4", "a.py", resources=GPUS), 4),
        # A quantity may be written in any way.
        (job("torchrun", "a.py", resources=limits(**{"nvidia.com/gpu": "2000m"})), 2),
        (job("torchrun", "a.py", resources=limits(**{"nvidia.com/gpu": 2.0})), 2),
        (job("torchrun", "a.py", nprocPerNode="2", resources={"limits": {"aws.amazon.com/neuron": 1}}), 2),
        (job("torchrun", "a.py", env={"PET_NPROC_PER_NODE": "8"}, resources=GPUS), 8),
        # References.
        (job("torchrun", "--nproc_per_node=$(NPROC)", "a.py", env={"NPROC": "2"}), 2),
        (job("torchrun", "--nproc_per_node=$(B)", "a.py", env={"A": "2", "B": "$(A)"}), 2),
        (shell("torchrun --nproc_per_node=$NPROC train.py", env={"NPROC": "2"}), 2),
        (shell("torchrun --nproc_per_node=${NPROC} train.py", env={"NPROC": "2"}), 2),
        (shell("torchrun --nproc_per_node=${NPROC:-2} train.py"), 2),
        (shell("torchrun --nproc_per_node=${NPROC:-2} train.py", env={"NPROC": "6"}), 6),
        (shell("torchrun --nproc_per_node=$(nvidia-smi -L | wc -l) train.py", resources=GPUS), 8),
        (shell("torchrun --nproc_per_node=$((2 * N)) a.py", env={"N": "2"}), 4),
        (shell("PET_NPROC_PER_NODE=4 torchrun a.py"), 4),
        (shell("export PET_NPROC_PER_NODE=4 && torchrun a.py", resources=GPUS), 4),
        # Shell strings.
        (shell(MULTILINE), 4),
        (shell(MEGATRON, workers=3), 8),
        (shell(ARRAY, workers=1), 2),
        (job("sh", "-lc", args=("cd /work && exec torchrun --nproc_per_node 2 train.py",)), 2),
        (job("/bin/bash", "-c", "--", "torchrun --nproc_per_node 2 train.py"), 2),
        (shell('bash -c "torchrun --nproc_per_node=2 train.py"'), 2),
        (shell("if [ -d /data ]; then torchrun --nproc_per_node=2 a.py; else echo torchrun; fi"), 2),
        (shell("cat > run.sh <<'EOF'\ntorchrun --nproc_per_node=2 a.py\nEOF\nbash run.sh", resources=GPUS),
         2),
        (shell("python - <<EOF\ntorchrun = 3\nEOF\ntorchrun --nproc_per_node=2 a.py"), 2),
        (shell("nohup numactl -N 0 torchrun --nproc_per_node=2 a.py &"), 2),
        (shell("$(which torchrun) --nproc_per_node=2 a.py"), 2),
        (shell("python setup.py && bash prepare.sh; python train.py", resources=GPUS), 1),
        (shell("python -c 'import torch; print(1)'", resources=GPUS), 1),
        # Other launchers.
        (job("accelerate", "launch", "--num_processes", "4", "train.py"), 4),
        (job("accelerate", "launch", "--multi_gpu", "train.py", resources=GPUS), 8),
        (job("accelerate", "launch", "train.py"), 1),
        (job("accelerate", "launch", "--num_processes=16", "--num_machines=2", "a.py", workers=1), 8),
        (job("python", "-m", "accelerate.commands.launch", "--num_processes=2", "a.py"), 2),
        (shell("accelerate launch --num_machines $PET_NNODES --num_processes $((PET_NNODES * 8)) a.py",
               workers=3), 8),
        (job("deepspeed", "--num_gpus", "4", "train.py", "--deepspeed"), 4),
        (job("deepspeed", "train.py", resources=GPUS), 8),
        (job("deepspeed", "--include=localhost:0,2,3", "train.py", resources=GPUS), 3),
        (job("mpirun", "-np", "4", "--allow-run-as-root", "-x", "PATH", "python", "train.py", "-n", "9"), 4),
        (job("horovodrun", "-np", "4", "-H", "localhost:4", "python", "train.py"), 4),
        (job("mpirun", "-np", "1", "torchrun", "--nproc_per_node=4", "a.py"), 4),
        (job("mpirun", "-np", "4", "bash", "-c", "python a.py"), 4),
        (job("mpirun", "-np", "4", "./train", "-n", "8", "--np=8", resources=GPUS), 4),
        (job("composer", "-n", "8", "a.py", resources=GPUS), 8),
        (job("composer", "a.py", resources=GPUS), 8),
        (job("composer", "a.py"), 1),
        (shell("composer -n 8 --world_size 16 --node_rank $RANK a.py", workers=1, resources=GPUS), 8),
        (job("python", "-m", "composer.cli.launcher", "-n", "8", "a.py", resources=GPUS), 8),
        (job("tune", "run", "--nproc_per_node", "4", "recipe", "--config", "x", resources=GPUS), 4),
        (job("tune", "run", "recipe_single_device", resources=GPUS), 1),
        (job("colossalai", "run", "--nproc_per_node", "4", "a.py"), 4),
        (job("python", "-m", "lightning", "run", "model", "--devices=8", "a.py", resources=GPUS), 8),
        (job("ipexrun", "--nnodes", "1", "--nprocs-per-node", "2", "a.py"), 2),
        (job("deepspeed", "-i", "localhost:0,1", "a.py", resources=GPUS), 2),
        (job("deepspeed", "--exclude", "localhost:0", "a.py", resources=GPUS), 7),
        # Only what a command runs is a launch, behind those that run another.
        (shell("uv pip install deepspeed; pip3.10 install deepspeed; python a.py", resources=GPUS), 1),
        (shell("source ~/.bashrc && conda activate deepspeed && python a.py", resources=GPUS), 1),
        (shell("sudo pip install accelerate; cd /w/accelerate && python a.py", resources=GPUS), 1),
        (shell("mkdir -p /out/deepspeed; git clone x/deepspeed; python a.py", resources=GPUS), 1),
        (shell("accelerate config default; torchrun --help; command -v torchrun; python a.py",
               resources=GPUS), 1),
        (shell("uv run --with accelerate python a.py", resources=GPUS), 1),
        (shell("conda run -n deepspeed --no-capture-output python a.py", resources=GPUS), 1),
        (shell("conda run -n deepspeed torchrun --nproc_per_node=2 a.py", resources=GPUS), 2),
        (shell("uv run -m torch.distributed.run --nproc_per_node=2 a.py", resources=GPUS), 2),
        (shell("sudo -E env A=1 timeout -k 5 2h torchrun --nproc_per_node=2 a.py", resources=GPUS), 2),
        (shell("nsys profile -o out -t cuda,nvtx torchrun --nproc_per_node=2 a.py", resources=GPUS), 2),
        (shell("nsys profile --session-new r-$RANDOM --wait all torchrun --nproc_per_node=2 a.py",
               resources=GPUS), 2),
        (job("/docker-entrypoint.sh", "torchrun", "--nproc_per_node=2", "a.py", resources=GPUS), 2),
        (shell("if true; then python a.py; fi", resources=GPUS), 1),
        (shell("for s in 1 2; do python a.py --seed $s; done", resources=GPUS), 1),
        (job("python", "-mtorch.distributed.launch", "--nproc_per_node=4", "a.py", resources=GPUS), 4),
        (job("torchrun", "--virtual-local-rank", "--nproc-per-node", "2", "a.py"), 2),
        (shell("case $X in deepspeed) N=2 ;; esac; python a.py", resources=GPUS), 1),
        # A here-document is data, unless a shell reads it.
        (shell("cat > a.py <<EOF\nfrom accelerate import Accelerator\nEOF\npython a.py", resources=GPUS), 1),
        (shell(SDK, resources={"limits": {"nvidia.com/gpu": 2}}, workers=1), 2),
        (shell("bash <<EOF\ntorchrun --nproc_per_node=2 a.py\nEOF", resources=GPUS), 2),
        (shell("cat <<EOF | sh\ntorchrun --nproc_per_node=2 a.py\nEOF", resources=GPUS), 2),
        (shell("cat <<EOF > run.sh\ntorchrun --nproc_per_node=2 a.py\nEOF\n./run.sh", resources=GPUS), 2),
        (shell('A=(--log_dir $(dirname "$0") --nproc_per_node 4)\ntorchrun "${A[@]}" a.py'), 4),
        # A value is one word where it is assigned.
        (shell('A=${A:-"--nproc_per_node 4 --nnodes 1"}; export B=$A; torchrun $B a.py'), 4),
        # Shells within shells.
        (job("bash", "-euo", "pipefail", "-c", "torchrun --nproc_per_node=4 a.py"), 4),
        (job("bash", "-o", "pipefail", "-c", "torchrun --nproc_per_node=4 a.py", resources=GPUS), 4),
        (job("su", "user", "-c", "torchrun --nproc_per_node=4 a.py"), 4),
        (shell('CMD="torchrun --nproc_per_node=4 a.py"; eval "$CMD"'), 4),
        # A script's own words.
        (job("bash", "-c", 'exec "$0" "$@"', "torchrun", "--nproc_per_node=4", "a.py"), 4),
        (job("bash", "-c", 'pip install x && "$@"', "--", args=("deepspeed", "--num_gpus=4", "a.py")), 4),
        (job("bash", "-c", 'torchrun --nproc_per_node=2 "$@"', "--", "a.py", "--text=a b"), 2),
        (job("sh", "-c", "torchrun --nproc_per_node=${1:-4} a.py"), 4),
        (job("sh", "-c", "torchrun --nproc_per_node=${1:-4} a.py", "sh", "2"), 2),
        (job("bash", "-c", 'N=$1; shift; torchrun --nproc_per_node=$N "$@"', "sh", "2", "a.py"), 2),
        (job("bash", "-c", 'torchrun --nproc_per_node=$2 "${@:3}"', "sh", "x", "2", "a.py"), 2),
        (shell('set -- --nproc_per_node=2 a.py; torchrun "$@"'), 2),
        (shell("cat > run.sh <<'E'\ntorchrun --nproc_per_node=$1 a.py\nE\nbash run.sh 2"), 2),
        # A function runs where it is called, with what it is given.
        (shell("f() { torchrun --nproc_per_node=$1 a.py; }\nf 2"), 2),
        (shell('run() { echo "$@"; "$@"; }\nrun torchrun --nproc_per_node=2 a.py'), 2),
        (shell("function f {\n  N=2\n}\nN=8\nf\ntorchrun --nproc_per_node=$N a.py"), 2),
        (shell("N=8\nf() { N=2; }\ntorchrun --nproc_per_node=$N a.py"), 8),
        (shell("f() { local N=2; echo ${N}; }\nN=8\nf\ntorchrun --nproc_per_node=$N a.py"), 8),
        (shell('N=2\nmain() { torchrun --nproc_per_node=$N ${1:-a.py}; }\nN=4\nmain "$@"'), 4),
        (shell("debug() { torchrun --nproc_per_node=2 a.py; }\ntorchrun --nproc_per_node=8 a.py"), 8),
        (shell("f() { if [ $1 = x ]; then N=2; else N=4; fi; }\nf y\ntorchrun --nproc_per_node=$N a.py"), 4),
        # What follows `exec` and `exit` does not run.
        (shell("if [ $N -gt 1 ]; then exec torchrun --nproc_per_node=$N a.py; fi; exec python a.py",
               env={"N": "8"}, resources=GPUS), 8),
        (shell(SINGLE, resources=GPUS), 1),
        (shell(SINGLE, resources=GPUS, workers=1), 8),
        (shell("exec > >(tee log) 2>&1; torchrun --nproc_per_node=8 a.py; exit $?; python b.py --gpus=2"), 8),
        (shell("die() { echo $1; exit 1; }; [ -d /x ] || die no; torchrun --nproc_per_node=8 a.py"), 8),
        (shell("f() { if [ $1 = a ]; then python a.py; return; fi; torchrun a; }\nf b", resources=GPUS), 8),
        (shell("(cd /x; exit 0); torchrun --nproc_per_node=8 a.py"), 8),
        # A list behind a test.
        (shell("[ $N -gt 1 ] && torchrun a.py || python a.py", env={"N": "8"}, resources=GPUS), 8),
        (shell("[ $N -gt 1 ] && torchrun a.py || python a.py", env={"N": "1"}, resources=GPUS), 1),
        (shell("[ $N = 1 ] && exec python a.py; torchrun a.py", env={"N": "1"}, resources=GPUS), 1),
        (shell("[ $N = 1 ] && exec python a.py; torchrun a.py", env={"N": "8"}, resources=GPUS), 8),
        (shell("N=8; [ $A = 1 ] && N=2; torchrun --nproc_per_node=$N a.py", env={"A": "0"}), 8),
        (shell("N=8; [ $A = 1 ] || N=2; torchrun --nproc_per_node=$N a.py", env={"A": "0"}), 2),
        (shell("[ -d /x ] || exit 1; [ -f a.sh ] && . a.sh; torchrun --nproc_per_node=8 a.py"), 8),
        (shell("[ -d /x ] || python prepare.py; torchrun --nproc_per_node=8 a.py || exit 1"), 8),
        (shell("[ $A = 1 ] && { echo small; torchrun --nproc_per_node=2 a.py; } || torchrun a.py",
               env={"A": "0"}, resources=GPUS), 8),
        (shell("[ $A = 1 ] && (cd x; torchrun --nproc_per_node=2 a.py); torchrun --nproc_per_node=4 a.py",
               env={"A": "0"}), 4),
        (shell("torchrun --nproc_per_node=8 a.py && python test.py --gpus 1", resources=GPUS), 8),
        # A calculation.
        (shell("GPUS=8; N=$(($GPUS<8?$GPUS:8)); torchrun --nproc_per_node=$N a.py"), 8),
        (shell("N=$(nvidia-smi -L | wc -l)\naccelerate launch --multi_gpu --num_processes $((N - 1)) a.py",
               resources=GPUS), 7),
        (shell("accelerate launch --multi_gpu --num_machines ${PET_NNODES:-1} "
               "--num_processes $(( ${PET_NNODES:-1} * $(nvidia-smi -L | wc -l) )) a.py",
               resources=GPUS, workers=2), 8),
        (shell("torchrun --nproc_per_node=$(( (1 + 1) * 2 )) a.py"), 4),
        (shell("N=${PET_NPROC_PER_NODE:?not set}; torchrun --nproc_per_node=$N a.py", nprocPerNode="4"), 4),
        (shell("export CUDA_VISIBLE_DEVICES=0,1,2\nN=$(echo $CUDA_VISIBLE_DEVICES | tr ',' '\\n' | wc -l)\n"
               "torchrun --nproc_per_node=$N a.py", resources=GPUS), 3),
        (shell("D=0,1; N=$(echo $D | awk -F',' '{print NF}'); torchrun --nproc_per_node=$N a.py"), 2),
        # A condition that the manifest decides.
        (shell(IF.format("$N -gt 1"), env={"N": "2"}, resources=GPUS), 8),
        (shell(IF.format("$N -gt 1"), env={"N": "1"}, resources=GPUS), 1),
        (shell("N=$(nvidia-smi -L | wc -l)\n" + IF.format("$N -gt 1"), resources=GPUS), 8),
        (shell("if (( PET_NNODES > 1 )); then torchrun a.py; else python a.py; fi", workers=1,
               resources=GPUS), 8),
        (shell("case $M in ddp|fsdp) torchrun a.py ;; *) python a.py ;; esac", env={"M": "fsdp"},
               resources=GPUS), 8),
        (shell("case $M in ddp) torchrun a.py;; (one*) python a.py;; esac", env={"M": "one_gpu"},
               resources=GPUS), 1),
        (shell("case $M in a) python a.py;; *) echo unknown; exit 1;; esac", resources=GPUS), 1),
        (shell("if [[ $M == p5.* ]]; then N=8; elif [ $M = g5 ]; then N=4; else N=1; fi\n"
               "torchrun --nproc_per_node=$N a.py", env={"M": "g5"}), 4),
        (shell('N=2; if [ -z "$A" ]; then N=4; fi; torchrun --nproc_per_node=$N a.py', env={"A": "x"}), 2),
        (shell("if [ ! -d /data ]; then python prepare.py; fi; torchrun --nproc_per_node=8 a.py"), 8),
        (shell("if [ $A = 1 ]; then torchrun --nproc_per_node=1 a.py; else python a.py; fi"), 1),
        (shell("if torchrun --nproc_per_node=8 a.py; then python upload.py; else python report.py; fi"), 8),
        (shell("if ! [ $A = 1 ]; then N=4; else N=2; fi; torchrun --nproc_per_node=$N a.py", env={"A": "1"}),
         2),
        # A Python of another name.
        (shell("/sim/python.sh -m torch.distributed.run --nproc_per_node=8 a.py", resources=GPUS), 8),
        (shell("$PYTHON -m torch.distributed.run --nproc_per_node=8 a.py", resources=GPUS), 8),
        # A here-document has the values from when it is written, unless its end is in quotes.
        (shell("N=4\ncat > r.sh <<E\ntorchrun --nproc_per_node=${N:-2} a.py\nE\nbash r.sh"), 4),
        (shell("N=4\ncat > r.sh <<'E'\ntorchrun --nproc_per_node=${N:-2} a.py\nE\nbash r.sh"), 2),
        (shell("N=4\ncat > r.sh <<E\nN=8\ntorchrun --nproc_per_node=\\$N a.py\nE\nbash r.sh"), 8),
        (shell("unset PET_NPROC_PER_NODE PET_NNODES; torchrun a.py", resources=GPUS), 1),
        # Only what is exported reaches a program.
        (shell("CUDA_VISIBLE_DEVICES=0,1; torchrun --nproc_per_node=gpu a.py", resources=GPUS), 8),
        (shell("CUDA_VISIBLE_DEVICES=0,1; export A=1 CUDA_VISIBLE_DEVICES; torchrun a", resources=GPUS), 2),
        (shell("set -a; CUDA_VISIBLE_DEVICES=0,1; torchrun a.py", resources=GPUS), 2),
        (shell("export A N=4; bash -c 'torchrun --nproc_per_node=${N:-8} a.py'", resources=GPUS), 4),
        (shell("N=4; bash -c 'torchrun --nproc_per_node=${N:-8} a.py'", resources=GPUS), 8),
        (shell("PET_NPROC_PER_NODE=4; torchrun a.py", resources=GPUS), 4),
        (shell("N=2; cat > r.sh <<'E'\ntorchrun --nproc_per_node=${N:-4} a.py\nE\n. ./r.sh"), 2),
        (job("env", "-u", "PET_NPROC_PER_NODE", "torchrun", "a.py", resources=GPUS), 1),
        (job("env", "-i", "PATH=/bin", "torchrun", "a.py", resources=GPUS), 1),
        # Other counts of the GPUs.
        (shell("torchrun --nproc_per_node=$(ls /dev/nvidia[0-9]* | wc -l) a.py", resources=GPUS), 8),
        (shell("N=$(ls -d /dev/nvidia? 2>/dev/null | wc -l); torchrun --nproc_per_node=$N a.py",
               resources=GPUS), 8),
        (shell("N=$(nvidia-smi --query-gpu=name --format=csv | tail -n +2 | wc -l)\n"
               "torchrun --nproc_per_node=$N a.py", resources=GPUS), 8),
        (shell("N=$(nvidia-smi --query-gpu=count --format=csv,noheader | head -n 1)\n"
               "torchrun --nproc_per_node=$N a.py", resources=GPUS), 8),
        # The default configuration of accelerate, if the script writes it.
        (shell(DEFAULT, resources=GPUS), 4),
        (shell(DEFAULT + "accelerate launch --num_processes=4 b.py", resources=GPUS), 4),
        # A variable holds as long as in a shell.
        (shell("N=8; (N=4); torchrun --nproc_per_node=$N a.py", resources=GPUS), 8),
        (shell("N=8; unset N; torchrun --nproc_per_node=${N:-4} a.py", resources=GPUS), 4),
        (shell('A="--nproc_per_node=4"; A+=" --nnodes=1"; torchrun $A a.py', resources=GPUS), 4),
        (shell("PET_NPROC_PER_NODE=2 python a.py; torchrun a.py", resources=GPUS), 8),
        (shell("torchrun --nproc_per_node=${N:-$(nvidia-smi -L | wc -l)} a.py", resources=GPUS), 8),
        (shell("source ~/.bashrc; torchrun --nproc_per_node=${N:-4} a.py"), 4),
        # The GPUs that a launcher sees.
        (shell("CUDA_VISIBLE_DEVICES=0,1 accelerate launch a.py", resources=GPUS), 2),
        (shell("export CUDA_VISIBLE_DEVICES=0,1,2,3; deepspeed a.py", resources=GPUS), 4),
        (job("torchrun", "a.py", env={"CUDA_VISIBLE_DEVICES": "0"}, resources=GPUS), 1),
        (shell("CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node=gpu a.py", resources=GPUS), 2),
        (shell("unset CUDA_VISIBLE_DEVICES; torchrun --nproc_per_node=gpu a.py", resources=GPUS), 8),
        (job("torchrun", "a.py", env={"HIP_VISIBLE_DEVICES": "0,1"}, resources=limits(**{"amd.com/gpu": 8})),
         2),
        (shell("export ROCR_VISIBLE_DEVICES=0,1; torchrun a.py", resources=limits(**{"amd.com/gpu": 8})), 2),
        (shell("torchrun --nproc_per_node=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l) a.py",
               resources=GPUS), 8),
        (shell("torchrun --nproc_per_node=$(nvidia-smi -L | grep -c '^GPU ') a.py", resources=GPUS), 8),
        (shell("N=`nvidia-smi -L | grep -c .`; torchrun --nproc_per_node=$N a.py", resources=GPUS), 8),
        (shell("N=$(nvidia-smi -L 2>/dev/null | wc -l | tr -d ' ' || echo 1);"
               " torchrun --nproc_per_node=$N a.py", resources=GPUS), 8),
        (shell("N=$(python -c 'import torch; print(max(1, torch.cuda.device_count()))');"
               " torchrun --nproc_per_node=$N a.py", resources=GPUS), 8),
        (shell("torchrun --nproc_per_node=$(nvidia-smi -L | grep -c '^GPU') a.py",
               resources=limits(**{"nvidia.com/mig-1g.5gb": 1})), 1),
        # An elastic job whose Master's torchrun is given the number of all nodes.
        (job("torchrun", "--nproc_per_node=8", "--nnodes=4", "a.py", workers=3, resources=GPUS,
             elasticPolicy={"minReplicas": 1, "maxReplicas": 8}), 8),
        # The script, and the number of nodes twice.
        (shell("torchrun --nproc_per_node=2 $DIR/a.py"), 2),
        (shell('accelerate launch --num_processes 2 "$(dirname "$0")/a.py"'), 2),
        (shell("torchrun --nproc_per_node=2 --nnodes=${PET_NNODES}:${PET_NNODES} a.py", workers=1), 2),
        # A program's own options.
        (job("python", "a.py", "--nproc_per_node=8", resources=GPUS), 8),
        (job("python", "a.py", "--gpus", "1", resources={"limits": {"nvidia.com/gpu": 1}}), 1),
        (job("python", "a.py", "--devices=auto", resources={"limits": {"nvidia.com/gpu": 1}}), 1),
        (job("python", "a.py", "--num-gpus=4", nprocPerNode="4", resources=GPUS), 4),
        (job("bash", "a.sh", resources={"limits": {"nvidia.com/gpu": 1}}), 1),
        (shell("python a.py && bash upload.sh"), 1),
        (job("python", "a.py", "--world-size=3", "--rank=$(RANK)", workers=2), 1),
        (job("python", "a.py", "--world_size", "$(WORLD_SIZE)", workers=2), 1),
        (job("python", "a.py", "--world-size=-1", resources=GPUS), 1),
        (shell("export WORLD_SIZE=1 RANK=0; python a.py"), 1),
        (shell("export WORLD_SIZE=${WORLD_SIZE:-1}; python a.py", workers=1), 1),
        (shell("WORLD_SIZE=$PET_NNODES python a.py", workers=1), 1),
        # A program in the background, beside the one that trains or alone.
        (shell("python exporter.py & python a.py"), 1),
        (shell("python a.py & wait $!"), 1),
        # Code that the manifest contains.
        (job("python", "-c", "import torch.distributed as d; d.init_process_group('gloo')", workers=1), 1),
        (shell("cat > launch_me.py <<'EOF'\nprint(1)\nEOF\npython launch_me.py"), 1),
        # A model that is not split.
        (job("torchrun", "--nproc_per_node=8", "a.py", "--tensor-model-parallel-size", "1"), 8),
        # Subshells in subshells.
        (shell("((torchrun --nproc_per_node=2 a.py) 2>&1 | tee log)"), 2),
        (shell("((export A=1; torchrun --nproc_per_node=2 a.py))"), 2),
        # A default that is assigned.
        (shell(': "${N:=4}"; torchrun --nproc_per_node=$N a.py'), 4),
        (shell(": ${N:=4}; torchrun --nproc_per_node=$N a.py", env={"N": "2"}), 2),
        # accelerate's own rules.
        (job("accelerate", "launch", "--cpu", "--num_processes=4", "a.py"), 1),
        (job("accelerate", "launch", "--cpu", "a.py", workers=1), 1),
        (job("accelerate", "launch", "--multi_gpu", "--num_processes=4", "a.py", resources=limits(cpu=4)), 4),
        # A configuration of accelerate that the script writes.
        (shell(CONFIG, nprocPerNode="4", workers=1), 4),
        (shell(CONFIG.replace("launch ", "launch --num_processes=4 "), nprocPerNode="2", workers=1), 2),
        # Several options in a variable, among them one that is computed.
        (shell('A="--nproc_per_node 4 --master_addr $(hostname -i | cut -d . -f 1)"; torchrun $A a.py',
               resources=GPUS), 4),
        (shell('cat > c.json <<EOF\n{"tensor_parallel": {"autotp_size": 1}}\nEOF\n'
               "torchrun --nproc_per_node=4 a.py"), 4),
        (shell("python $SCRIPT --lr 1", resources=GPUS), 1),
        # Text that stands in place of a variable, within others.
        (shell("torchrun ${PET_NPROC_PER_NODE:+--nproc_per_node=$PET_NPROC_PER_NODE} ${PET_NNODES:+--nnodes="
               "$PET_NNODES} ${OTHER:+--standalone} a.py", nprocPerNode="4", workers=1), 4),
        (shell("torchrun --nnodes=${NNODES:-${WORLD_SIZE:-1}} --nproc_per_node=${N:-${GPUS:-4}} a.py",
               workers=1), 4),
        (shell("torchrun --nproc_per_node=${A:-${B:-2}} a.py", env={"B": "4"}), 4),
        # NPROC_PER_NODE as a script sets it.
        (shell("NPROC_PER_NODE=4 swift sft", resources=GPUS), 4),
        (shell("export NNODES=$PET_NNODES NPROC_PER_NODE=4; swift sft", resources=GPUS, workers=1), 4),
        # What the image starts is stated.
        (job(nprocPerNode="4", resources=GPUS), 4),
        (job("swift", "sft", env={"NPROC_PER_NODE": "4"}, resources=GPUS), 4),
    ],
)  # fmt: skip
def test_processes_are_counted_as_they_will_run(made, count):
    found = read_processes(made)
    assert found.problem == ""
    assert found.replica == count
    assert all(each in {None, count} for each in (found.master, found.worker))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        # Places that disagree.
        (
            job("torchrun", "--nproc_per_node=4", "a.py", nprocPerNode="2"),
            "nprocPerNode is 2, but the command starts 4",
        ),
        (job("python", "train.py", nprocPerNode="4"), "nprocPerNode is 4, but the command starts 1"),
        (job("torchrun", "--nproc_per_node=8", "a.py", resources={"limits": {"nvidia.com/gpu": 4}}),
         "on 4 GPUs"),
        (job("torchrun", "a.py", resources=GPUS, env={"PET_NPROC_PER_NODE": "4"}),
         "in place of the container's 4"),
        (job("torchrun", "--nproc_per_node=4", "a.py", env={"NPROC_PER_NODE": "2"}), "NPROC_PER_NODE is 2"),
        (shell("torchrun --nproc_per_node=2 a.py; torchrun --nproc_per_node=4 b.py"), "start 2 and 4"),
        (job("torchrun", "--nproc_per_node=2", "a.py", nprocPerNode="2", elasticPolicy={}, workers=2),
         "only the Workers as nodes"),
        # What cannot be known.
        (job("torchrun", "train.py"), "one process per CPU of the node"),
        (job("torchrun", "--nproc_per_node=cpu", "train.py"), "process per CPU of the node"),
        (job("torchrun", "a.py", resources={"limits": {"nvidia.com/mig-1g.5gb": 2}}), "mig-1g.5gb: 2"),
        (job("torchrun", "a.py", resources={"limits": {"aws.amazon.com/neuron": 2}}), "neuron: 2"),
        (job("torchrun", "--nproc_per_node=$NPROC", "a.py"), r"write \$\(NAME\)"),
        (shell("torchrun --nproc_per_node=$NPROC a.py"), r"\$NPROC .* cannot be known"),
        (shell("torchrun --nproc_per_node=$(nproc) a.py"), "cannot be known"),
        # A count of some GPUs only, or of MIG slices besides their GPUs.
        (shell("torchrun --nproc_per_node=$(nvidia-smi -L | head -1 | wc -l) a.py", resources=GPUS),
         "cannot be known"),
        (shell("N=$(nvidia-smi --query-gpu=name --format=csv,noheader | sort -u | wc -l);"
               " torchrun --nproc_per_node=$N a.py", resources=GPUS), "cannot be known"),
        (shell("N=$(python -c 'import torch; print(torch.cuda.device_count() // 2)');"
               " torchrun --nproc_per_node=$N a.py", resources=GPUS), "cannot be known"),
        (shell("torchrun --nproc_per_node=$(nvidia-smi -L | wc -l) a.py",
               resources=limits(**{"nvidia.com/mig-1g.5gb": 1})), "lines_of_nvidia_smi .*cannot be known"),
        # Devices that PyTorch's launcher does not count.
        (job("torchrun", "a.py", resources=limits(**{"enflame.com/gcu": 8})), "enflame.com/gcu: 8"),
        (job("swift", "sft", resources=limits(**{"kunlunxin.com/xpu": 8})), "starts are unknown"),
        (job("swift", "sft", resources=limits(**{"nvidia.com/a100": 4})), "starts are unknown"),
        (job("torchrun", "--nproc_per_node=2", "--nnodes=$(PET_NNODES)", "a.py", elasticPolicy={}, workers=2),
         "only the Workers as nodes"),
        (shell("torchrun $ARGS a.py"), "options .* cannot be read"),
        (shell("if x; then N=2; else N=4; fi; torchrun --nproc_per_node=$N a.py"), "cannot be known"),
        (job("bash", "train.sh", resources=GPUS), "starts are unknown"),
        (job(resources=GPUS), "the image's entrypoint"),
        (job("sleep", "infinity", resources=GPUS), "'sleep infinity' starts are unknown"),
        (shell("for i in 0 1; do python train.py & done; wait", resources=GPUS), "starts are unknown"),
        (job("accelerate", "launch", "--config_file", "c.yaml", "a.py", resources=GPUS), "cannot be read"),
        (job("deepspeed", "--hostfile=/h", "a.py", workers=1, resources=GPUS), "cannot be read"),
        (job("mpirun", "python", "a.py"), "does not say how many"),
        (job("mpirun", "-n", "1", "./a", ":", "-n", "3", "./b"), "cannot be read"),
        (shell("wrap torchrun a.py; python b.py", resources=GPUS), "starts are unknown"),
        (shell("wrap bash -c 'torchrun a.py'; upload a"), "starts are unknown"),
        (shell("wrap torchrun --nproc_per_node=8 a.py", resources=GPUS), "several processes .nproc_per"),
        (job("python", "a.py", "--nnodes=3", "--nproc_per_node=8", workers=1, resources=GPUS),
         "several processes .nproc_per"),
        (shell("wrap torchrun --nproc_per_node=2 a.py", resources=GPUS), "several processes .nproc_per"),
        (shell("seq 0 3 | xargs -P4 python a.py --gpu", resources=GPUS), "starts are unknown"),
        (job("mpirun", "-np", "2", "torchrun", "--nproc_per_node=4", "a.py"), "cannot be read"),
        (job("torchrun", "a.py", env={"CUDA_VISIBLE_DEVICES": ""}, resources=GPUS), "VISIBLE_DEVICES is"),
        (shell("export CUDA_VISIBLE_DEVICES=$X; deepspeed a.py", resources=GPUS), r"DEVICES is \$X"),
        (job("bash", "run_ddp.sh"), "starts are unknown, and the pod has no GPUs"),
        (job("./train.sh"), "starts are unknown"),
        (job("megarun", "--nproc_per_node", "4", "a.py"), "several processes .nproc_per_node=4"),
        (job("python", "a.py", "--nproc_per_node=4"), "several processes .nproc_per_node=4"),
        (job("python", "a.py", "--num-gpus", "8", resources=GPUS), "several processes .num_gpus=8"),
        (job("python", "a.py", "trainer.devices=8", resources=GPUS), "several processes .devices=8"),
        (job("python", "a.py", "--multiprocessing-distributed", resources=GPUS),
         "several processes .multiprocessing"),
        (job("python", "-m", "axolotl.cli.train", "c.yml", resources=GPUS), "starts are unknown"),
        (job("python", "multiproc.py", "a.py", resources=GPUS), "starts are unknown"),
        (from_others("torchrun --nproc_per_node=${N:-8} a.py"), r"\$N .*cannot be known"),
        (shell("source /etc/job.env; torchrun --nproc_per_node=${N:-8} a.py"), "cannot be known"),
        (shell("export $(cat .env); torchrun --nproc_per_node=${N:-8} a.py"), "cannot be known"),
        (shell("read N; torchrun --nproc_per_node=${N:-8} a.py"), "cannot be known"),
        (shell('torchrun --nproc_per_node=2 "$@"'), "options .* cannot be read"),
        (shell("torchrun $(cat /etc/options) a.py"), "options .* cannot be read"),
        (shell("PET_NPROC_PER_NODE=2 torchrun a.py; torchrun b.py", resources=GPUS), "start 2 and 8"),
        # What starts any number of processes.
        (shell("ray start --head; python a.py"), "'ray start --head' starts are unknown"),
        (job("torchx", "run", "dist.ddp", "-j", "1x4", "--script", "a.py"), "starts are unknown"),
        (shell("$CMD"), r"'\$CMD' starts are unknown"),
        (shell("NPROC_PER_NODE=8; swift sft", resources=GPUS), "starts are unknown"),
        (shell("torchrun --nproc_per_node=$(ls /dev/nvidia* | wc -l) a", resources=GPUS), "cannot be known"),
        (shell("torchrun --nproc_per_node=$(ls /dev/nvidia? | wc -l) a.py",
               resources=limits(**{"nvidia.com/mig-1g.5gb": 1})), "cannot be known"),
        (shell("torchrun --nproc_per_node=$(nvidia-smi --query-gpu=name --format=csv | wc -l) a.py",
               resources=GPUS), "cannot be known"),
        (shell("cp /c/a.yaml ~/.cache/huggingface/accelerate/default_config.yaml; accelerate launch a.py",
               resources=GPUS), "cannot be read"),
        (shell("echo localhost slots=4 > /job/hostfile; deepspeed a.py", resources=GPUS), "cannot be read"),
        # A trial has another batch size.
        (shell(IF.format("$AUTOTUNER_BATCH_SIZE -gt 64"), env={"AUTOTUNER_BATCH_SIZE": "9"}, resources=GPUS),
         "or 'python a.py' runs"),
        # One of two programs, by what a pod knows only when it runs.
        (shell(IF.format('"$MODE" = ddp'), resources=GPUS), "or 'python a.py' runs, by a condition"),
        (shell(IF.format("$RANK -eq 0"), resources=GPUS, workers=1), "or 'python a.py' runs"),
        (shell("case $M in\n ddp|fsdp) torchrun a.py ;;\n *) python a.py ;;\nesac", resources=GPUS),
         "or 'python a.py' runs"),
        (shell("N=4; if [ $A = 1 ]; then N=1; else if [ $A = 2 ]; then N=2; fi; N=8; fi\n"
               "torchrun --nproc_per_node=$N a.py"), "cannot be known"),
        (shell('if [[ $M == "p*" ]]; then N=4; else N=2; fi; torchrun --nproc_per_node=$N a.py',
               env={"M": "p5"}), "cannot be known"),
        (shell("if [ $A ]; then exec torchrun --nproc_per_node=8 a.py; fi; exec python a.py"),
         "or 'python a.py' runs"),
        (shell("if [ $A ]; then python a.py; exit; fi; torchrun --nproc_per_node=8 a.py"),
         "or 'python a.py' runs"),
        (shell("[ $A ] && torchrun --nproc_per_node=8 a.py || python a.py"), "or 'python a.py' runs"),
        (shell("[ $A ] && exec torchrun --nproc_per_node=8 a.py; python a.py"), "or 'python a.py' runs"),
        (shell("N=8; [ $A = 1 ] && N=2; torchrun --nproc_per_node=$N a.py"), "cannot be known"),
        (shell("torchrun --nproc_per_node=1 convert.py && python a.py --gpus 8", resources=GPUS),
         "'python a.py --gpus 8' may start 8 processes"),
        (shell("N=8; torchrun --nproc_per_node=$((N / 3)) a.py"), "cannot be known"),
        (shell("torchrun --nproc_per_node=$((8 / 0)) a.py"), "cannot be known"),
        (shell("for i in 0 1; do CUDA_VISIBLE_DEVICES=$i torchrun --nproc_per_node=1 a.py & done; wait"),
         "cannot be read"),
        # What a script and a function are given, and what a loop takes of it.
        (job("bash", "-c", 'while [ $# -gt 0 ]; do case $1 in --n) N=$2; shift;; esac; shift; done; '
             'torchrun --nproc_per_node=$N "$@"', "sh", "--n", "2", "a.py"), "cannot be read"),
        (shell("f() { N=2; }; N=8; if [ $A ]; then f; fi; torchrun --nproc_per_node=$N a.py"),
         "cannot be known"),
        (shell("f() { f; }; f; f 1", resources=GPUS), "starts are unknown"),
        (job("torchrun --nproc_per_node=4 a.py"), "starts are unknown"),
        (job("python", "a.py", "--world-size", "4"), "several processes .world_size=4"),
        (job("python", "a.py", "--nprocs=4"), "several processes .nprocs=4"),
        (job("python", "a.py", "--strategy", "ddp", resources=GPUS), "several processes .strategy=ddp"),
        (job("python", "-m", "trl", "sft", resources=GPUS), "starts are unknown"),
        (job("python", "-m", "cProfile", "-m", "torch.distributed.run", "a.py", resources=GPUS),
         "starts are unknown"),
        (job("python", "-m", "torch.backends.xeon.run_cpu", "--ninstances=4", "a.py"), "starts are unknown"),
        (job("python", "train_ppo_ray.py", resources=GPUS), "starts are unknown"),
        (job("python", "a.py", "trainer.strategy=fsdp_native", resources=GPUS), "processes .strategy=fsdp"),
        (shell("for i in 0 1; do RANK=$i python a.py & done; wait"), "starts are unknown"),
        (shell("python a.py --rank 0 & python a.py --rank 1 & wait"), "starts are unknown"),
        (job("python", "-c", "mp.spawn(train, nprocs=4)"), "starts are unknown"),
        (shell("python - <<'EOF'\nmp.spawn(train, nprocs=4)\nEOF"), "starts are unknown"),
        (shell("cat > a.py <<'EOF'\nmp.spawn(train)\nEOF\npython a.py"), "starts are unknown"),
        (shell(SDK.replace("torchrun", "python3 -u").replace("train()", "mp.spawn(f)"), resources=GPUS),
         "starts are unknown"),
        (job("python", "-c", "L.Trainer(accelerator='cpu', devices=2)"), "starts are unknown"),
        # Processes that are no group.
        (shell("export WORLD_SIZE=1 RANK=0; python a.py", workers=1), "WORLD_SIZE of .* is 1, but .* 2 pods"),
        (shell("WORLD_SIZE=4 python a.py"), "WORLD_SIZE of .* is 4, but the job has 1 pods"),
        # A model that is split over processes.
        (job("torchrun", "--nproc_per_node=8", "a.py", "--tensor-model-parallel-size", "8", resources=GPUS),
         "tensor_model_parallel_size=8 .* splits the model"),
        (job("torchrun", "--nproc_per_node=8", "a.py", "model.pipeline_model_parallel_size=2"),
         "splits the model"),
        (shell("torchrun --nproc_per_node=8 a.py --tensor_parallel_size=$TP"), "splits the model"),
        (job("accelerate", "launch", "--multi_gpu", "--num_processes=8", "a.py", "--tp_size=2"),
         "splits the model"),
        (job("torchrun", "--nproc_per_node=8", "a.py", "--seq_parallel_size", "4"), "splits the model"),
        (job("mpirun", "-np", "8", "python", "a.py", "--tp_size", "4", resources=GPUS), "splits the model"),
        (job("torchrun", "--nproc_per_node=8", "a.py", "--sp-degree=2"), "splits the model"),
        (job("deepspeed", "--num_gpus=8", "a.py", "--ring_attn_size", "2"), "splits the model"),
        (job("torchrun", "--nproc_per_node=8", "a.py", "--tensor-parallel=4"), "splits the model"),
        (job("torchrun", "--nproc_per_node=8", "a.py", "--tensor-parallelism", "4"), "splits the model"),
        (job("torchrun", "--nproc_per_node=8", "a.py", "--model_parallel=2"), "splits the model"),
        (shell(CONFIG.replace("num_processes", "x"), resources=GPUS, workers=1), "cannot be read"),
        (shell(CONFIG.replace("fsdp_config:", "gpu_ids: 0,1"), workers=1), "cannot be read"),
        (shell(CONFIG, resources=GPUS, workers=1), "auto .* cannot be known"),
        (shell(SPLIT), "tensor_parallel_size=8 .* splits the model"),
        (shell("cat > c.yaml <<EOF\nmodel:\n  tensor_model_parallel_size: 4\nEOF\n"
               "torchrun --nproc_per_node=8 a.py --config c.yaml"),
         "tensor_model_parallel_size=4 of 'a file that the script writes' splits"),
        (shell('C=$(cat <<EOF\npython a.py --context_parallel_size 2\nEOF\n)\necho "$C" > a.sh\n'
               "torchrun --nproc_per_node=8 --no-python bash a.sh"), "context_parallel_size=2 .* splits"),
        # Python with options that are unknown.
        (shell("source c.sh; python $DISTRIBUTED a.py $ARGS", resources=GPUS), "starts are unknown"),
        # Each of several pods alone, or what is not known to be set.
        (shell("NPROC_PER_NODE=4 swift sft", resources=GPUS, workers=1), "starts are unknown"),
        (from_others("torchrun ${N:+--nproc_per_node=$N} a.py"), "options .* cannot be read"),
        (shell("torchrun --nproc_per_node=${A:-${B:-${C:-${D:-${E:-${F:-2}}}}}} a.py"), "cannot be known"),
        # A variable that is computed.
        (shell("N=2; ((N++)); torchrun --nproc_per_node=$N a.py"), "cannot be known"),
        (shell("N=2; let N=N*2; torchrun --nproc_per_node=$N a.py"), "cannot be known"),
        (shell("N=2; printf -v N 4; torchrun --nproc_per_node=$N a.py"), "cannot be known"),
        (job("accelerate", "launch", "--num_processes=4", "a.py", resources=limits(cpu=4)),
         "sees several GPUs"),
        # A group that is not the job.
        (shell("accelerate launch --multi_gpu --num_machines $WORLD_SIZE a.py", resources=GPUS, workers=1),
         "no --num_processes, so the 2 pods start as many together as one"),
        (job("axolotl", "train", "c.yaml", workers=1, resources=ONE), "group of one pod"),
        (job("python", "-m", "llamafactory.cli", "train", "c.yaml", workers=1), "group of one pod"),
        (shell("export NNODES=1; swift sft", workers=3, resources=ONE), "group of one pod, but .* 4 pods"),
        (job("python", "a.py", "trainer.num_nodes=1", workers=1, resources=ONE), "num_nodes=1 .* 2 pods"),
        (job("python", "a.py", "--nnodes=4", "--nproc_per_node=1", workers=1, resources=ONE),
         "nnodes=4 .* 2 pods"),
        (job("composer", "-n", "2", "a.py", workers=1), "group of one pod"),
        (job("composer", "-n", "8", "--world_size", "16", "a.py", workers=3, resources=GPUS), "differ on 4"),
        (job("torchrun", "--standalone", "--nnodes=2", "--nproc_per_node=2", "a.py", workers=1),
         "group of one pod"),
        (job("torchrun", "--standalone", "--nproc_per_node=2", "a.py", workers=1), "group of one pod"),
        (job("torchrun", "--nnodes=1", "--nproc_per_node=2", "a.py", workers=1),
         "--nnodes=1 differs from the job's 2"),
        (job("torchrun", "--nnodes=1:2", "--nproc_per_node=2", "a.py", workers=1), "--nnodes=1:2 differs"),
        (job("accelerate", "launch", "--num_processes=2", "a.py", workers=1), "group of one pod"),
        (job("accelerate", "launch", "--num_processes=3", "--num_machines=2", "a.py", workers=1),
         "not a multiple"),
        (job("deepspeed", "--num_gpus=2", "a.py", workers=1), "group of one pod"),
    ],
)  # fmt: skip
def test_processes_that_disagree_or_cannot_be_known_say_what_was_found(made, words):
    found = read_processes(made)
    assert found.problem
    assert re.search(words, found.problem), found.problem
    assert mistakes(made, annotations()) == []
    for asked in (annotations(micro_batch_size="1..8"), annotations(workers="1..8")):
        (mistake, *_) = mistakes(made, asked)
        assert "processes-per-replica" in str(mistake)
        stated = {**asked, "autotuner.dev/processes-per-replica": "3"}
        assert not [m for m in mistakes(made, stated) if "in doubt" in m.rule]
        assert shape(made, stated).processes_per_replica == 3


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (job("torchrun", "--standalone", "a.py", workers=1, resources=GPUS), "group of one pod"),
        (job("torchrun", "--nnodes=3", "--nproc_per_node=8", "a.py", workers=1), "--nnodes=3 differs"),
        (shell("export WORLD_SIZE=1; python a.py", workers=1), "WORLD_SIZE of .* is 1"),
        (job("axolotl", "train", "c.yaml", workers=1, resources=ONE), "group of one pod"),
        (job("bash", "run.sh", workers=1, resources=GPUS), None),
        (job("torchrun", "--nproc_per_node=8", "a.py", "--tp-size=2", workers=1), None),
    ],
)
def test_a_stated_number_does_not_join_pods_that_train_apart(made, words):
    warning = assumed(read_processes(made), annotations(micro_batch_size="1..8", processes_per_replica="8"))
    assert (warning is None) == (words is None)
    assert warning is None or re.search(words, warning.rule)
    assert assumed(read_processes(made), annotations(processes_per_replica="8")) is None
    # So the question does not offer to state it first.
    for mistake in mistakes(made, annotations(micro_batch_size="1..8")):
        assert (mistake.example == "--nnodes=$(PET_NNODES)") == (words is not None)


def test_a_master_may_start_other_processes_than_its_workers():
    one = container(command=("torchrun", "--nproc_per_node=1", "a.py"))
    many = container(command=("torchrun", "--nproc_per_node=4", "a.py"))
    made = manifest(master=replica(one), worker=replica(many, replicas=2))
    assert shape(made, {}) == Shape(masters=1, workers=2, processes_per_replica=4, processes_per_master=1)
    assert shape(made, {}).processes == 9


def test_a_launcher_that_reaches_out_counts_for_all_pods():
    launcher = container(command=("deepspeed", "--num_gpus=8", "--num_nodes=3", "a.py"), resources=GPUS)
    waiting = container(command=("/usr/sbin/sshd", "-D"), resources=GPUS)
    made = manifest(master=replica(launcher), worker=replica(waiting, replicas=2))
    assert shape(made, {}).processes == 24
    (mistake,) = mistakes(made, annotations(workers="1..4"))
    assert mistake.value == "--num_nodes=3"


def test_a_number_of_nodes_in_a_variable_does_not_follow_the_workers():
    made = shell("NNODES=2 NPROC_PER_NODE=4 swift sft", resources=GPUS, workers=1)
    wrong = [(mistake.value, mistake.example) for mistake in mistakes(made, annotations(workers="1..4"))]
    assert wrong == [("NNODES=2", "NNODES=$(PET_NNODES), which the operator sets")] * 2


def test_unknown_processes_are_taken_for_one_a_gpu_where_little_depends_on_it():
    made = job("bash", "train.sh", resources=GPUS, workers=1)
    assert read_processes(made).problem
    assert shape(made, annotations()).processes == 16


@pytest.mark.parametrize(
    ("amounts", "count"),
    [
        ({"nvidia.com/gpu": 2, "nvidia.com/gpumem": 3000, "nvidia.com/gpucores": 30}, 2),
        ({"aliyun.com/gpu-mem": 8}, 1),
        ({"tke.cloud.tencent.com/qgpu-memory": "8Gi", "tke.cloud.tencent.com/qgpu-core": 50}, 1),
        ({"nvidia.com/gpu": "1k"}, 1000),
        ({"nvidia.com/gpu": -2}, 1),
    ],
)
def test_a_part_of_a_gpu_is_paid_for_as_one_and_not_as_its_megabytes(amounts, count):
    assert devices(job("python", "a.py", resources=limits(**amounts)), {}) == count


def test_processes_that_share_a_part_of_a_batch_may_be_stated_as_one():
    made = job(
        "torchrun", "--nproc_per_node=8", "a.py", "--tensor-parallel-size=4", resources=GPUS, workers=1
    )
    (mistake, *_) = mistakes(made, annotations(micro_batch_size="1..8"))
    assert mistake.example == 'autotuner.dev/processes-per-replica: "2"'
    asked = annotations(micro_batch_size="1..8", processes_per_replica="2")
    assert mistakes(made, asked) == []
    assert shape(made, asked).processes == 4


def test_workers_without_a_master_are_no_group_without_a_launcher():
    made = job("python", "a.py", workers=2, elasticPolicy={})
    del made["spec"]["pytorchReplicaSpecs"]["Master"]
    assert re.search(
        "sets no WORLD_SIZE here, so that the 2 pods may each train alone", read_processes(made).problem
    )
    (mistake,) = mistakes(made, annotations(micro_batch_size="1..8"))
    assert "processes-per-replica" in mistake.rule
    assert mistakes(made, annotations(micro_batch_size="1..8", processes_per_replica="1")) == []


def test_workers_alone_are_counted_without_a_master():
    made = job("torchrun", "a.py", workers=3, nprocPerNode="2")
    del made["spec"]["pytorchReplicaSpecs"]["Master"]
    assert shape(made, {}) == Shape(masters=0, workers=3, processes_per_replica=2)


def test_the_values_of_a_trial_decide_what_its_script_runs():
    made = shell(
        IF.format("$AUTOTUNER_BATCH_SIZE -gt 64"), env={"AUTOTUNER_BATCH_SIZE": "256"}, resources=GPUS
    )
    assert read_processes(made).problem
    kept = made["metadata"]["annotations"]
    made["metadata"]["annotations"] = {keys.SUGGESTION: "{}"}
    assert read_processes(made).master == 8
    made["metadata"]["annotations"] |= kept
    assert read_processes(made).problem


def test_an_elastic_jobs_own_number_of_processes_is_the_operators():
    made = job("torchrun", "a.py", workers=2, elasticPolicy={"nProcPerNode": 4})
    del made["spec"]["pytorchReplicaSpecs"]["Master"]
    assert read_processes(made).worker == 4


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (job("torchrun", "--nnodes=3", "--nproc_per_node=2", "a.py", workers=2), "--nnodes=3"),
        (job("torchrun", "--nnodes", "$(NNODES)", "--nproc_per_node=2", "a.py", workers=2,
         env={"NNODES": "3"}),
         "--nnodes=3"),
        (shell("torchrun --nnodes=$NNODES --nproc_per_node=2 a.py", workers=2, env={"NNODES": "3"}),
         "--nnodes=3"),
        (job("accelerate", "launch", "--num_machines=3", "--num_processes=6", "a.py", workers=2),
         "--num_machines=3"),
    ],
)  # fmt: skip
def test_a_number_of_nodes_that_does_not_follow_the_workers_is_a_mistake_beside_them(made, value):
    assert read_processes(made).replica == 2
    assert mistakes(made, annotations(micro_batch_size="1..8")) == []
    first, *_ = mistakes(made, annotations(workers="1..4"))
    assert first.value == value
    assert "PET_NNODES" in str(first)


@pytest.mark.parametrize("nodes", ["$PET_NNODES", "${PET_NNODES}", "$(PET_NNODES)", "$WORLD_SIZE"])
def test_a_number_of_nodes_that_the_operator_sets_follows_the_workers(nodes):
    made = shell(f"torchrun --nnodes={nodes} --nproc_per_node=2 a.py", workers=2)
    assert mistakes(made, annotations(workers="1..4")) == []
    assert shape(made, {}).processes == 6


def test_stated_processes_must_not_contradict_a_launcher():
    made = job("torchrun", "--nproc_per_node=4", "a.py")
    asked = annotations(processes_per_replica="8")
    (mistake,) = mistakes(made, asked)
    assert mistake.value == "8"
    assert mistakes(job("python", "spawns.py"), asked) == []


@given(st.lists(st.text(alphabet="ab$(){}[]=\"'`\\;&|<>#\n -_:@*1torchrun", max_size=60), max_size=4))
def test_whatever_a_command_says_its_processes_are_counted_or_not(words):
    for made in (job(*words), shell(" ".join(words)), job("torchrun", *words)):
        found = read_processes(made)
        assert found.replica >= 1


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "script",
    [
        "$(" * 100_000,
        "${" * 100_000,
        '"' + "$" * 200_000,
        "`" * 200_001,
        "A=x\n" + "A=$A$A$A$A\n" * 5_000 + "torchrun $A",
        "cat <<E\n" * 20_000,
        "bash -c 'bash -c \"bash -c x\"'; " * 5_000,
        "torchrun " * 30_000,
        "\n".join(f"torchrun --nproc_per_node={n} a" for n in range(5_000)),
        "A=(" * 60_000,
        "((((" * 60_000,
        "".join(f"cat <<E{n}\nx\nE{n}\n" for n in range(15_000)),
        "cat > a <<E\n" + "./b\n" * 1_000 + "E\ncat > b <<E\n" + "./a\n" * 1_000 + "E\n./a\n" * 9,
        "eval " * 30_000,
        "sudo -u " * 30_000 + "torchrun",
        "torchrun " + "$(" * 50_000,
        "torchrun $" + "{a" * 50_000,
        "f() { " * 40_000,
        "f() { f; f; }\n" * 5_000 + "f\n" * 5_000,
        "".join(f"f{n}() {{ {f'f{n - 1}; ' * 40} }}\n" for n in range(1, 9)) + "f8",
        "f() { '" + "'\"" * 60_000,
        "if [ $A ]; then " * 15_000,
        "case $A in " * 20_000,
        "case $A in " + "a|" * 100_000,
        "f() { torchrun " + '"$@" ' * 3_000 + "; }\nf " + "x " * 30_000,
    ],
    ids=range(25),
)
def test_a_hostile_script_is_read_in_linear_time(script):
    assert read_processes(shell(script)).replica >= 1


def test_a_fixed_rank_of_workers_does_not_follow_them():
    nodes = "torchrun --nnodes=$(PET_NNODES) --nproc_per_node=2 --node_rank="

    def made(rank: str, **spec: Any) -> list[Mistake]:
        replicas = [replica(container(command=(nodes + each).split())) for each in ("0 a.py", f"{rank} a.py")]
        return mistakes(manifest(master=replicas[0], worker=replicas[1], **spec), annotations(workers="1..4"))

    (found,) = made("1")
    assert "Worker container pytorch command is '--node_rank=1': must follow each" in str(found)
    assert found.example == "--node_rank=$(PET_NODE_RANK), which the operator sets"
    assert made("$(PET_NODE_RANK)") == []
    # A script that chooses.
    script = f"if [ $RANK = 0 ]; then {nodes}0 a.py; else {nodes}1 a.py; fi".replace("$(PET", "${PET")
    script = script.replace("NNODES)", "NNODES}")
    assert mistakes(shell(script, workers=1), annotations(workers="1..4")) == []
