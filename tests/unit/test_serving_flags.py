"""handlers.serving.flags and hardware: the same settings give the right vLLM flags on a CPU, a T4 and an L4."""

from pathlib import Path

import pytest

from handlers.serving import flags
from handlers.serving.config import EngineSettings
from handlers.serving.errors import ServingError
from handlers.serving.hardware import Hardware, detect, parse_gpu

CPU = Hardware("cpu", "CPU", cores=8)
T4 = Hardware("cuda", "Tesla T4", (7, 5), 4)
L4 = Hardware("cuda", "NVIDIA L4", (8, 9), 8)


def command(settings: EngineSettings, hardware: Hardware, adapters: int = 2) -> flags.EngineCommand:
    return flags.engine_command(
        settings, hardware, model=Path("/m"), base_name="base", adapters=adapters, host="127.0.0.1", port=1
    )


def value(found: flags.EngineCommand, flag: str) -> str:
    position = found.arguments.index(flag)
    return found.arguments[position + 1]


@pytest.mark.parametrize(
    ("wanted", "hardware", "given"),
    [
        ("auto", CPU, "float32"),
        ("auto", T4, "float16"),
        ("auto", L4, "bfloat16"),
        ("bfloat16", CPU, "bfloat16"),
        ("float16", L4, "float16"),
        ("float32", T4, "float32"),
    ],
)
def test_dtype(wanted: str, hardware: Hardware, given: str) -> None:
    assert value(command(EngineSettings(dtype=wanted), hardware), "--dtype") == given


def test_bfloat16_on_a_t4_is_refused_before_anything_starts() -> None:
    with pytest.raises(ServingError, match="Tesla T4") as caught:
        command(EngineSettings(dtype="bfloat16"), T4)
    assert "float16" in caught.value.next_step


@pytest.mark.parametrize(("rank", "flag"), [(1, "1"), (2, "8"), (8, "8"), (9, "16"), (257, "320"), (512, "512")])
def test_rank_is_rounded_up_to_what_vllm_takes(rank: int, flag: str) -> None:
    assert value(command(EngineSettings(max_lora_rank=rank), CPU), "--max-lora-rank") == flag


@pytest.mark.parametrize("adapters", [0, 1, 2, 7, 20])
def test_there_are_two_slots_more_than_adapters_and_more_room_in_host_memory(adapters: int) -> None:
    found = command(EngineSettings(), CPU, adapters)
    assert int(value(found, "--max-loras")) == adapters + 2
    assert int(value(found, "--max-cpu-loras")) == found.max_live >= max(32, 4 * adapters)


@pytest.mark.parametrize("given", [("--max-cpu-loras", "9"), ("--max-cpu-loras=9",), ("--max_cpu_loras", "9")])
def test_the_room_that_extra_arguments_give_is_known(given: tuple[str, ...]) -> None:
    assert command(EngineSettings(extra_args=given), CPU).max_live == 9


def test_room_that_is_no_number() -> None:
    with pytest.raises(ServingError, match="--max-cpu-loras the value 'many'"):
        command(EngineSettings(extra_args=("--max-cpu-loras", "many")), CPU)


def test_cpu_is_eager_without_compilation_and_with_a_bounded_cache() -> None:
    found = command(EngineSettings(), CPU)
    assert "--enforce-eager" in found.arguments
    assert value(found, "--kv-cache-memory-bytes") == str(1024 * 1024 * 1024)
    assert found.environment["TORCH_COMPILE_DISABLE"] == "1"
    assert found.environment["OMP_NUM_THREADS"] == "7"
    assert found.environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_gpu_keeps_its_graphs_and_finds_its_cache_size() -> None:
    found = command(EngineSettings(), L4)
    assert "--enforce-eager" not in found.arguments
    assert "--kv-cache-memory-bytes" not in found.arguments
    assert "TORCH_COMPILE_DISABLE" not in found.environment
    assert "OMP_NUM_THREADS" not in found.environment


def test_several_numa_nodes_keep_vllms_own_worker_and_binding() -> None:
    found = command(EngineSettings(), Hardware("cpu", "CPU", cores=64, numa_nodes=2))
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in found.environment


def test_extra_arguments_come_last_so_that_they_win() -> None:
    found = command(EngineSettings(extra_args=("--max-loras", "9")), CPU)
    assert found.arguments[-2:] == ("--max-loras", "9")


def test_no_pickle_and_no_remote_code() -> None:
    found = command(EngineSettings(), L4)
    assert value(found, "--load-format") == "safetensors"
    assert "--trust-remote-code" not in found.arguments


def test_the_engine_inherits_no_secret() -> None:
    given = {
        "PATH": "/bin",
        "LORAFLEET_RUN": "r",
        "HF_TOKEN": "s",
        "PULUMI_CONFIG_PASSPHRASE": "s",
        "VLLM_API_KEY": "s",
        "LANG": "C",
    }
    assert flags.inherited(given) == {"PATH": "/bin", "LORAFLEET_RUN": "r", "LANG": "C"}


def test_every_plugin_that_is_allowed_is_an_entry_point() -> None:
    text = (flags.PACKAGE / "vllm_plugins/lorafleet_vllm-1.0.dist-info/entry_points.txt").read_text()
    declared = {line.split(" = ")[0]: line.split(" = ")[1] for line in text.splitlines() if " = " in line}
    assert set(declared) == set(flags.PLUGINS)
    for target in declared.values():
        module, _, function = target.partition(":")
        source = flags.PACKAGE / "vllm_plugins" / (module.replace(".", "/") + ".py")
        assert f"def {function}(" in source.read_text()


@pytest.mark.parametrize(
    ("text", "name", "capability"),
    [("Tesla T4, 7.5\n", "Tesla T4", (7, 5)), ("NVIDIA L4, 8.9\nNVIDIA L4, 8.9\n", "NVIDIA L4", (8, 9))],
)
def test_nvidia_smi_is_read(text: str, name: str, capability: tuple[int, int]) -> None:
    found = parse_gpu(text)
    assert found is not None
    assert (found.name, found.compute_capability) == (name, capability)


@pytest.mark.parametrize("text", ["", "\n", "No devices were found\n", "x, [N/A]\n"])
def test_nvidia_smi_without_a_gpu(text: str) -> None:
    assert parse_gpu(text) is None


def test_cuda_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ServingError, match="nvidia-smi lists no GPU"):
        detect("cuda")
    assert detect("auto").device == "cpu"
