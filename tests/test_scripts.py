"""scripts/train.py under launchers, and the configurations for `accelerate launch`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.launch import prepare_multi_gpu_env
from accelerate.utils.other import get_free_port
from safetensors.torch import load_file
from torch.distributed.fsdp import StateDictType

from hf_clip.recipes import list_launches

SCRIPTS = Path(__file__).parents[1] / "scripts"
CONFIGS = {
    "ddp_8_gpus": (DistributedType.MULTI_GPU, 1, 8),
    "fsdp2_8_gpus": (DistributedType.FSDP, 1, 8),
    "two_nodes": (DistributedType.MULTI_GPU, 2, 16),
}


def config(name: str) -> str:
    return str(list_launches()[name])


def test_every_config_is_tested():
    assert list_launches().keys() == CONFIGS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_accelerate_reads_a_config_as_it_is_meant(name):
    read = load_config_from_file(config(name))
    assert (read.distributed_type, read.num_machines, read.num_processes) == CONFIGS[name]
    assert read.mixed_precision == "bf16"
    assert not read.use_cpu
    # Of several machines each says on its command line which one it is, and where the first one is.
    assert read.main_process_ip is None


def test_the_sharded_config_becomes_fsdp2_with_whole_checkpoints():
    args = launch_command_parser().parse_args(["--config_file", config("fsdp2_8_gpus"), "scripts/train.py"])
    args, _, _ = _validate_launch_command(args)
    with patch_environment(**prepare_multi_gpu_env(args)):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap is None  # the trainer names the blocks


@pytest.fixture
def settings(tower_folders, pictures) -> list[str]:
    vision, text = tower_folders
    towers = ["--vision_model", vision, "--text_model", text, "--projection_dim", "16", "--freeze_vision"]
    run = ["--train_data", str(pictures), "--max_steps", "3", "--learning_rate", "1e-3", "--save_strategy", "no"]
    return [str(SCRIPTS / "train.py"), *towers, *run, "--use_cpu"]


def start(*command: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True)


def wait(*running: subprocess.Popen) -> None:
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_torchrun_and_accelerate_give_the_weights_of_one_process(settings, tmp_path):
    """Two processes, four on two machines that are one, and one process, each on a global batch of 8."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch = ["-m", "accelerate.commands.launch", "--config_file", config("two_nodes"), "--num_processes", "4"]
    launch += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(get_free_port())]
    launch += ["--mixed_precision", "no", "--machine_rank"]
    size = "--per_device_train_batch_size"
    commands = {
        "one": [[*settings, size, "8"]],
        "torchrun": [[*torchrun, *settings, size, "4"]],
        "accelerate": [[*launch, machine, *settings, size, "2"] for machine in ("0", "1")],
    }
    for name, of_each_machine in commands.items():
        wait(*(start(*command, "--output_dir", str(tmp_path / name)) for command in of_each_machine))
    for name in ("torchrun", "accelerate"):
        for key, weight in weights(tmp_path / "one").items():
            torch.testing.assert_close(
                weights(tmp_path / name)[key], weight, rtol=1e-3, atol=1e-5, msg=f"{name} {key}"
            )
