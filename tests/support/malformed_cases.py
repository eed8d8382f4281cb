"""The malformed declarations of tests/unit/test_malformed.py: each is one small change to a project that is right.

`field` is the dotted path that the error must name; `says` are pieces of text that must stand in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.support.fleet_project import Project, adapter_tensors, model_tensors, safetensors_bytes

# Put together here, so that no scanner takes this file for a leak.
SECRET = "hf" + "_" + "Qw3rTyUiOpAsDfGhJkLzXcVb"
PASSWORD = "correct-horse"
SHA = "sha256:" + "0" * 64
COMMIT = "e949c91dec92095908d34e6b560af77dd0c993f8"


@dataclass(frozen=True)
class Case:
    name: str
    field: str
    change: Callable[[Project], None]
    says: tuple[str, ...] = ()


def put(path: str, value: object) -> Callable[[Project], None]:
    """Set the value at a dotted path of the declaration."""

    def change(project: Project) -> None:
        *parents, last = path.split(".")
        here: Any = project.fleet
        for part in parents:
            here = here[part]
        here[last] = value

    return change


def drop(path: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        *parents, last = path.split(".")
        here: Any = project.fleet
        for part in parents:
            here = here[part]
        del here[last]

    return change


def rename(path: str, new: str) -> Callable[[Project], None]:
    """Give another name to the key at the end of the path, in its place."""

    def change(project: Project) -> None:
        *parents, last = path.split(".")
        here: Any = project.fleet
        for part in parents:
            here = here[part]
        items = [(new if key == last else key, value) for key, value in here.items()]
        here.clear()
        here.update(items)

    return change


def rename_adapter(new: str) -> Callable[[Project], None]:
    return both(rename("adapters.checklist", new), rename("release.adapters.checklist", new))


def both(*changes: Callable[[Project], None]) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        for single in changes:
            single(project)

    return change


def adapter_config(**settings: object) -> Callable[[Project], None]:
    return lambda project: project.write_adapter("easycontract", config=settings)


def adapter_weights(change: Callable[[dict[str, Any]], None]) -> Callable[[Project], None]:
    def apply(project: Project) -> None:
        tensors: dict[str, Any] = adapter_tensors()
        change(tensors)
        project.write_adapter("easycontract", tensors=tensors)

    return apply


def file(path: str, content: bytes | None) -> Callable[[Project], None]:
    """Replace a file below the project's root; None takes it away."""

    def change(project: Project) -> None:
        target = project.root / path
        target.unlink()
        if content is not None:
            target.write_bytes(content)

    return change


def new_file(path: str, content: bytes) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        (project.root / path).write_bytes(content)

    return change


def json_file(path: str, **settings: object) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        target = project.root / path
        target.write_text(json.dumps({**json.loads(target.read_text()), **settings}))

    return change


def append(path: str, content: bytes) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        target = project.root / path
        target.write_bytes(target.read_bytes() + content)

    return change


def index(weight_map: dict[str, str]) -> Callable[[Project], None]:
    """Give the base the index of a model in parts."""

    def change(project: Project) -> None:
        (project.base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return change


def cut(path: str, keep: float) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        raw = (project.root / path).read_bytes()
        (project.root / path).write_bytes(raw[: int(len(raw) * keep)])

    return change


def link(path: str, to: str) -> Callable[[Project], None]:
    """Put a symbolic link in the place of a file or folder."""

    def change(project: Project) -> None:
        target = project.root / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
        target.symlink_to(to)

    return change


def folder_in_place(path: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        (project.root / path).unlink()
        (project.root / path).mkdir()

    return change


def pickle_adapter(project: Project) -> None:
    folder = project.adapter("easycontract")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def pickle_base(project: Project) -> None:
    (project.base / "model.safetensors").rename(project.base / "pytorch_model.bin")


def llama_weights(tensors: dict[str, Any]) -> None:
    for name in list(tensors):
        llama = name.replace("transformer.h", "model.layers").replace("attn.attention", "self_attn")
        tensors[llama.replace("out_proj", "o_proj")] = tensors.pop(name)


def hub_base(pin: dict[str, str]) -> Callable[[Project], None]:
    return both(
        put("baseModel.source", "hf://LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct"),
        put("baseModel.licenceAccepted", "exaone-nc"),
        put("baseModel.purpose", "research"),
        put("release.baseModel", pin),
    )


WEIGHTS = "models/easycontract/adapter_model.safetensors"
CONFIG = "models/easycontract/adapter_config.json"
FIRST_A = "base_model.model.transformer.h.0.attn.attention.q_proj.lora_A.weight"
FIRST_B = FIRST_A.replace("lora_A", "lora_B")
EASY = "adapters.easycontract.source"
BASE = "baseModel.source"
ENGINE = "targets.server.engine"

STRUCTURE = [
    Case("unknown key at the top", "extra", put("extra", 1), ("baseModel",)),
    Case("misspelt key at the top", "adapter", rename("adapters", "adapter"), ("Did you mean `adapters`?",)),
    Case("unknown key of the base", "baseModel.licence", rename("baseModel.license", "licence"), ("`license`",)),
    Case("snake_case key of the base", "baseModel.trained_as", rename("baseModel.trainedAs", "trained_as"),
         ("`trainedAs`",)),
    Case("unknown key of an adapter", "adapters.easycontract.path", put("adapters.easycontract.path", "x"),
         ("source",)),
    Case("unknown key of a target", "targets.server.prot", rename("targets.server.port", "prot"), ("`port`",)),
    Case("snake_case key of a target", "targets.server.max_in_flight", put("targets.server.max_in_flight", 1),
         ("`maxInFlight`",)),
    Case("unknown key of the engine", f"{ENGINE}.gpuMemory", put(f"{ENGINE}.gpuMemory", 1), ("kvCacheMib",)),
    Case("arguments past the declaration", f"{ENGINE}.extraArgs", put(f"{ENGINE}.extraArgs", ["--x"])),
    Case("unknown key of the router", "router.host", put("router.host", "0.0.0.0"), ("metricsPort",)),
    Case("unknown key of the limits", "router.limits.maxToken", put("router.limits.maxToken", 1), ("`maxTokens`",)),
    Case("unknown key of the release", "release.models", put("release.models", {}), ("adapters",)),
    Case("unknown key of the pin", "release.baseModel.sha", put("release.baseModel.sha", SHA), ("digest",)),
    Case("the environment is not declared", "environment", put("environment", "prod")),
    Case("the origin is not declared", "origin", put("origin", {})),
    Case("no base", "baseModel", drop("baseModel"), ("missing",)),
    Case("no router", "router", drop("router"), ("missing", "metricsPort")),
    Case("no release", "release", drop("release"), ("missing",)),
    Case("no targets", "targets", drop("targets"), ("missing",)),
    Case("no source and not in the store", "release.adapters.easycontract", drop(EASY), ("lorafleet adapter push",)),
    Case("source of a wrong type", EASY, put(EASY, 7)),
    Case("store without a scheme", "store", put("store", "/somewhere/store")),
    Case("store on the hub", "store", put("store", "hf://owner/store")),
    Case("store with a slash at the end", "store", put("store", "gs://bucket/")),
    Case("store in a home", "store", put("store", "file://~/store")),
    Case("store is a number", "store", put("store", 1)),
    Case("roll-out that never ends", "rollout.timeoutS", put("rollout", {"timeoutS": 0})),
    Case("misspelt roll-out", "rollout.timeout", put("rollout", {"timeout": 30}), ("timeoutS",)),
    Case("canary of an unknown adapter", "release.canaries.easycontrat",
         put("release.canaries", {"easycontrat": {"digest": SHA, "weight": 10}}), ("Did you mean easycontract?",)),
    Case("canary of an adapter with a source", "release.canaries.easycontract",
         put("release.canaries", {"easycontract": {"digest": SHA, "weight": 10}}), ("lorafleet adapter push",)),
    Case("canary without a weight", "release.canaries.easycontract.weight",
         put("release.canaries", {"easycontract": {"digest": SHA}}), ("percent",)),
    Case("canary that takes all", "release.canaries.easycontract.weight",
         put("release.canaries", {"easycontract": {"digest": SHA, "weight": 100}}), ("99",)),
    Case("canary with a share as a fraction", "release.canaries.easycontract.weight",
         put("release.canaries", {"easycontract": {"digest": SHA, "weight": 0.1}}), ("99",)),
    Case("canary without a digest", "release.canaries.easycontract.digest",
         put("release.canaries", {"easycontract": {"weight": 10}}), ("sha256",)),
    Case("licence that was not accepted", "baseModel", put("baseModel.license", "EXAONE AI Model License Agreement 1.1"),
         ("licenceAccepted: exaone-nc", "purpose")),
    Case("licence of a name that adapters carry", "baseModel",
         put("baseModel.trainedAs", ["tiny-base", "LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct"]), ("exaone-nc",)),
    Case("another licence accepted", "baseModel.licenceAccepted",
         both(put("baseModel.license", "EXAONE AI Model License Agreement 1.1"),
              put("baseModel.licenceAccepted", "exaone"), put("baseModel.purpose", "research")), ("exaone-nc",)),
    Case("licence without a purpose", "baseModel",
         both(put("baseModel.license", "EXAONE AI Model License Agreement 1.1"),
              put("baseModel.licenceAccepted", "exaone-nc")), ("purpose",)),
    Case("licence that a mirror noted", "baseModel", new_file("models/base/lorafleet.json",
         b'{"version": 1, "licence": "exaone-nc"}'), ("exaone-nc",)),
    Case("licence in the model's folder", "baseModel", new_file("models/base/LICENSE",
         b"EXAONE AI Model License Agreement 1.1 - NC"), ("exaone-nc",)),
    Case("no licence", "baseModel.license", drop("baseModel.license"), ("missing",)),
    Case("no port of a target", "targets.server.port", drop("targets.server.port"), ("missing",)),
    Case("no kind", "targets.server", drop("targets.server.kind"), ("local",)),
    Case("empty adapters", "adapters", both(put("adapters", {}), put("release.adapters", {})), ("at least one",)),
    Case("adapters without a value", "adapters", put("adapters", None), ("null",)),
    Case("adapters as a list", "adapters", put("adapters", ["easycontract"]), ("mapping",)),
    Case("adapter as a text", "adapters.easycontract", put("adapters.easycontract", "file://x"), ("mapping",)),
    Case("empty targets", "targets", put("targets", {}), ("at least one",)),
    Case("targets as a list", "targets", put("targets", []), ("mapping",)),
    Case("target as a number", "targets.server", put("targets.server", 8101), ("8101",)),
    Case("engine as a text", ENGINE, put(ENGINE, "fast"), ("mapping", "maxModelLen")),
    Case("names of the base as a text", "baseModel.trainedAs", put("baseModel.trainedAs", "tiny-base"), ("a list",)),
    Case("name of the base as a list", "baseModel.name", put("baseModel.name", ["a"]), ("a list of 1",)),
]  # fmt: skip

VALUES = [
    Case("port as a text", "router.port", put("router.port", "8100"), ("quotes",)),
    Case("port as a truth value", "router.port", put("router.port", True), ("truth value",)),
    Case("port with a fraction", "router.port", put("router.port", 8100.5), ("fraction",)),
    Case("port that is not a number", "router.port", put("router.port", float("nan")), ("nan",)),
    Case("infinite port", "router.metricsPort", put("router.metricsPort", float("inf"))),
    Case("port below the range", "router.port", put("router.port", 80), ("1024",)),
    Case("port above the range", "targets.server.port", put("targets.server.port", 65536), ("65535",)),
    Case("negative port", "targets.server.port", put("targets.server.port", -1)),
    Case("huge number", f"{ENGINE}.maxModelLen", put(f"{ENGINE}.maxModelLen", 10**300), ("digits",)),
    Case("negative size", f"{ENGINE}.kvCacheMib", put(f"{ENGINE}.kvCacheMib", -5), ("MiB",)),
    Case("no requests at all", "targets.server.maxInFlight", put("targets.server.maxInFlight", 0)),
    Case("truth value as a number", "targets.server.maxQueue", put("targets.server.maxQueue", False)),
    Case("time-out with a unit", "targets.server.startTimeoutS", put("targets.server.startTimeoutS", "900s")),
    Case("null as a number", "router.limits.maxTokens", put("router.limits.maxTokens", None), ("null",)),
    Case("rank that vLLM has not", f"{ENGINE}.maxLoraRank", put(f"{ENGINE}.maxLoraRank", 12), ("8, 16, 32",)),
    Case("rank as a text", f"{ENGINE}.maxLoraRank", put(f"{ENGINE}.maxLoraRank", "16")),
    Case("unknown device", f"{ENGINE}.device", put(f"{ENGINE}.device", "cdua"), ('"cuda"',)),
    Case("unknown number format", f"{ENGINE}.dtype", put(f"{ENGINE}.dtype", "float61"), ("float16",)),
    Case("open to the network", "targets.server.host", put("targets.server.host", "0.0.0.0"), ("127.0.0.1",)),
    Case("unknown kind", "targets.server.kind", put("targets.server.kind", "locla"), ("Did you mean local?",)),
    Case("kind that reaches out of its folder", "targets.server.kind", put("targets.server.kind", "../kit")),
    Case("kind as a number", "targets.server.kind", put("targets.server.kind", 5)),
    Case("other architecture", "baseModel.architecture", put("baseModel.architecture", "LlamaForCausalLM"),
         ("Exaone",)),
    Case("empty licence", "baseModel.license", put("baseModel.license", ""), ("empty",)),
    Case("number in a list of names", "baseModel.trainedAs[1]", put("baseModel.trainedAs", ["a", 7]), ("quotes",)),
    Case("target's name in capitals", "targets.Server", rename("targets.server", "Server"), ("lower-case",)),
    Case("target named like the router", "targets.router", rename("targets.server", "router")),
    Case("target's name with a slash", "targets.a/b", rename("targets.server", "a/b")),
    Case("base's name with a blank", "baseModel.name", put("baseModel.name", "exaone 2.4b")),
    Case("adapter named like the base", "adapters.easy", both(
        rename("adapters.checklist", "easy"), rename("release.adapters.checklist", "easy"), put("baseModel.name", "easy")),
        ("base model's name",)),
    Case("image by a tag", "release.image", put("release.image", "registry.example/serving:latest"), ("sha256",)),
    Case("state folder above the project", "targets.server.stateDir", put("targets.server.stateDir", "../x")),
    Case("state folder is the project", "targets.server.stateDir", put("targets.server.stateDir", "."), ("own",)),
    Case("state folder is a file", "targets.server.stateDir",
         put("targets.server.stateDir", "stacks/Pulumi.local.yaml")),
    Case("interpreter is missing", "targets.server.python", put("targets.server.python", "bin/python"),
         ("make setup",)),
    Case("interpreter is a folder", "targets.server.python", put("targets.server.python", "models"), ("a folder",)),
]  # fmt: skip

PINS = [
    Case("digest too short", "release.adapters.checklist", put("release.adapters.checklist", SHA[:-1]), ("64",)),
    Case("digest in capitals", "release.adapters.checklist", put("release.adapters.checklist", "sha256:" + "A" * 64)),
    Case("digest without its kind", "release.baseModel.digest", put("release.baseModel.digest", "0" * 64),
         ("sha256:",)),
    Case("digest as a number", "release.adapters.checklist", put("release.adapters.checklist", 10**63), ("quotes",)),
    Case("digest of another adapter", "release.adapters.checklist", put("release.adapters.checklist", SHA),
         (SHA, "folder")),
    Case("digest of another base", "release.baseModel.digest", put("release.baseModel.digest", SHA), ("restore",)),
    Case("base without a pin", "release.baseModel", put("release.baseModel", {}), ("lorafleet digest --kind model",)),
    Case("revision of a folder", "release.baseModel.revision", put("release.baseModel.revision", COMMIT), ("hf://",)),
    Case("hub without a revision", "release.baseModel", hub_base({"digest": SHA}), ("revision",)),
    Case("branch as a revision", "release.baseModel.revision", hub_base({"revision": "main"}), ("branch",)),
    Case("short revision", "release.baseModel.revision", hub_base({"revision": COMMIT[:12]}), ("40",)),
    Case("adapter of the hub without a revision", "adapters.easycontract", put("adapters.easycontract", {
        "source": "hf://team/easycontract", "rank": 8}), ("revision",)),
    Case("adapter elsewhere without a rank", "adapters.easycontract", put("adapters.easycontract", {
        "source": "gs://bucket/easycontract"}), ("rank",)),
    Case("revision of an adapter's folder", "adapters.easycontract.revision",
         put("adapters.easycontract.revision", COMMIT)),
    Case("pin of an unknown adapter", "release.adapters.summary", put("release.adapters.summary", SHA),
         ("not declared",)),
    Case("misspelt pin", "release.adapters.checklst", rename("release.adapters.checklist", "checklst"),
         ("Did you mean checklist?",)),
    Case("adapter without a pin", "release.adapters", drop("release.adapters.checklist"), ("checklist",)),
    Case("ports of router and metrics", "router.metricsPort", put("router.metricsPort", 8100), ("router.port",)),
    Case("ports of router and target", "targets.server.port", put("targets.server.port", 8100), ("router.port",)),
    Case("ports of two targets", "targets.second.port", put("targets.second", {"kind": "local", "port": 8101}),
         ("targets.server.port",)),
]  # fmt: skip

SOURCES = [
    Case("source without a scheme", EASY, put(EASY, "models/easycontract"), ("file://",)),
    Case("unknown scheme", EASY, put(EASY, "s3://bucket/easycontract"), ("gs://",)),
    Case("misspelt scheme", EASY, put(EASY, "fil://models/easycontract"), ("Did you mean file://?",)),
    Case("address of a web page", BASE,
         put(BASE, "https://huggingface.co/LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct/tree/main"),
         ("Write hf://LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct",)),
    Case("hub without an owner", BASE, put(BASE, "hf://EXAONE"), ("owner/repository",)),
    Case("revision inside the source", BASE, put(BASE, f"hf://a/b@{COMMIT}"), ("`revision`",)),
    Case("bucket without a folder", BASE, put(BASE, "gs://our-models"), ("gs://bucket/folder",)),
    Case("bucket with dots", BASE, put(BASE, "gs://our-models/../other"), ("gs://bucket/folder",)),
    Case("home folder", EASY, put(EASY, "file://~/easycontract"), ("~",)),
    Case("half a character", EASY, put(EASY, "file://a\ud800"), ("control character",)),
    Case("empty path", EASY, put(EASY, "file://"), ("empty",)),
    Case("source as a mapping", EASY, put(EASY, {"path": "x"}), ("a text",)),
]  # fmt: skip

ADAPTER_FILES = [
    Case("folder is missing", EASY, put(EASY, "file://models/easycontrct"), ("does not exist",)),
    Case("folder is a file", EASY, put(EASY, "file://stacks/Pulumi.local.yaml"), ("not a folder",)),
    Case("folder below a file", EASY, put(EASY, "file://stacks/Pulumi.local.yaml/x"), ("not a folder",)),
    Case("link that leads nowhere", EASY, link("models/easycontract", "nowhere"), ("does not exist",)),
    Case("link to itself", EASY, link("models/easycontract", "easycontract"), ("leads to itself",)),
    Case("weights link to themselves", EASY, link(WEIGHTS, "adapter_model.safetensors"),
         ("leads to itself",)),
    Case("name that is too long", EASY, put(EASY, "file://" + "long " * 60), ("too long",)),
    Case("pickle", EASY, pickle_adapter, ("pickle", "save_pretrained")),
    Case("pickle under another name", EASY, file(WEIGHTS, b"PK\x03\x04" + b"x" * 99),
         ("pickle",)),
    Case("LFS pointer", EASY, file(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"),
         ("git lfs pull",)),
    Case("no weights", EASY, file(WEIGHTS, None), ("does not exist",)),
    Case("no configuration", EASY, file(CONFIG, None), ("adapter_config.json",)),
    Case("empty configuration", EASY, file(CONFIG, b""), ("empty",)),
    Case("empty weights", EASY, file(WEIGHTS, b""), ("empty",)),
    Case("folder in place of the weights", EASY, folder_in_place(WEIGHTS), ("a folder",)),
    Case("configuration cut off", EASY, cut(CONFIG, 0.5), ("JSON",)),
    Case("configuration is a list", EASY, file(CONFIG, b"[]"), ("not an object",)),
    Case("configuration is not text", EASY, file(CONFIG, b"\xff\xfe{}"), ("UTF-8",)),
    Case("weights cut off", EASY, cut(WEIGHTS, 0.9), ("too early",)),
    Case("header cut off", EASY, cut(WEIGHTS, 0.05), ("damaged",)),
    Case("weights with a tail", EASY, append(WEIGHTS, b"xx"), ("2 bytes too many",)),
    Case("other method", EASY, adapter_config(peft_type="IA3"), ("LoRA",)),
    Case("made for another base", EASY, adapter_config(base_model_name_or_path="meta/llama"),
         ("another base", "trainedAs")),
    Case("no base named", EASY, adapter_config(base_model_name_or_path=None), ("another base",)),
    Case("rank is no number", EASY, adapter_config(r="8"), ("r:",)),
    Case("rank does not fit the tensors", EASY, adapter_config(r=4), ("does not have the rank",)),
    Case("alpha is missing", EASY, adapter_config(lora_alpha=None), ("lora_alpha",)),
    Case("whole modules saved", EASY, adapter_config(modules_to_save=["lm_head"]), ("modules_to_save",)),
    Case("DoRA", EASY, adapter_config(use_dora=True), ("DoRA",)),
    Case("ranks by module", EASY, adapter_config(rank_pattern={"q_proj": 4}), ("rank_pattern",)),
    Case("trained biases", EASY, adapter_config(bias="all"), ("bias",)),
    Case("no modules", EASY, adapter_config(target_modules=[]), ("target_modules",)),
    Case("unknown module", EASY, adapter_config(target_modules=["q_prj"]), ("q_proj",)),
    Case("Llama's modules", EASY, adapter_config(target_modules=["q_proj", "o_proj"]), ("o_proj -> out_proj",)),
    Case("Llama's tensors", EASY, adapter_weights(llama_weights), ("model.layers -> transformer.h",)),
    Case("no tensors", EASY, adapter_weights(lambda t: t.clear()), ("no tensors",)),
    Case("half a pair", EASY, adapter_weights(lambda t: t.pop(FIRST_B)), ("without lora_B",)),
    Case("tensor of another shape", EASY, adapter_weights(lambda t: t.update({FIRST_A: ("F32", (8, 24))})),
         ("do not fit",)),
    Case("layer that the base has not", EASY, adapter_weights(lambda t: t.update({
        FIRST_A.replace(".0.", ".7."): ("F32", (8, 16)), FIRST_B.replace(".0.", ".7."): ("F32", (16, 8))})), ("2 layers",)),
    Case("tensor of a saved module", EASY, adapter_weights(lambda t: t.update({"base_model.model.lm_head.weight": ("F32",
         (64, 16))})),
         ("lm_head",)),
    Case("whole numbers as weights", EASY, adapter_weights(lambda t: t.update({FIRST_A: ("I8", (8, 16))})), ("I8",)),
    Case("rank above the target's", f"{ENGINE}.maxLoraRank", both(
        lambda p: p.write_adapter("easycontract", config={"r": 32}, tensors=adapter_tensors(32)), lambda p: p.pin()),
        ("easycontract", "32")),
    Case("declared rank is wrong", "adapters.easycontract.rank", put("adapters.easycontract.rank", 16), ("16", "8")),
    Case("rank of an adapter elsewhere above the target's", f"{ENGINE}.maxLoraRank", put("adapters.easycontract", {
        "source": "gs://bucket/easycontract", "rank": 64}), ("64",)),
]  # fmt: skip

BASE_FILES = [
    Case("base's folder is missing", BASE, put(BASE, "file://models/none"), ("does not exist",)),
    Case("base without config.json", BASE, file("models/base/config.json", None), ("config.json",)),
    Case("base of another architecture", BASE, json_file("models/base/config.json", architectures=["LlamaForCausalLM"]),
         ("LlamaForCausalLM",)),
    Case("base of another type", BASE, json_file("models/base/config.json", model_type="exaone4"), ("exaone4",)),
    Case("base without sizes", BASE, json_file("models/base/config.json", hidden_size=None), ("hidden_size",)),
    Case("base as a pickle", BASE, pickle_base, ("pickle", "safe_serialization")),
    Case("base without weights", BASE, file("models/base/model.safetensors", None), ("no weights",)),
    Case("base's weights cut off", BASE, cut("models/base/model.safetensors", 0.5), ("too early",)),
    Case("base's weights of other sizes", BASE, json_file("models/base/config.json", intermediate_size=48),
         ("c_fc_0",)),
    Case("base with Llama's tensors", BASE, file("models/base/model.safetensors", safetensors_bytes(
        {name.replace("transformer.h", "model.layers"): t for name, t in model_tensors().items()})), ("EXAONE's names",)),
    Case("base with a part missing", BASE, index({"transformer.wte.weight": "model-00001-of-00002.safetensors"}),
         ("00001-of-00002",)),
    Case("base's index reaches out", BASE, index({"a": "../x.safetensors"}), ("names no weights",)),
    Case("base without a tokenizer", BASE, file("models/base/tokenizer.json", None), ("tokenizer.json",)),
    Case("base without a chat template", BASE, file("models/base/tokenizer_config.json", b"{}"), ("chat template",)),
    Case("longer than the model can", f"{ENGINE}.maxModelLen", put(f"{ENGINE}.maxModelLen", 2048), ("1024",)),
]  # fmt: skip


class SecretCase(NamedTuple):
    name: str
    change: Callable[[Project], None]


SECRETS = [
    SecretCase("token at the top", put("hfToken", SECRET)),
    SecretCase("key of an adapter", put("adapters.easycontract.apiKey", SECRET)),
    SecretCase("key of a target", put("targets.server.apiKey", PASSWORD + SECRET)),
    SecretCase("secret under an innocent key", put("router.note", SECRET)),
    SecretCase("secret as a key", put("adapters.easycontract." + SECRET, "x")),
    SecretCase("secret as a source", put(EASY, SECRET)),
    SecretCase("secret inside a source", put(EASY, f"https://user:{SECRET}@example.org/x")),
    SecretCase("secret as an adapter", put("adapters.easycontract", SECRET)),
    SecretCase("secret as a number", put("router.port", SECRET)),
    SecretCase("secret as a kind", put("targets.server.kind", SECRET)),
    SecretCase("secret as a revision", hub_base({"revision": SECRET})),
    SecretCase("secret as a digest", put("release.adapters.checklist", SECRET)),
    SecretCase("encrypted value", put("secure", "v1:" + SECRET)),
    SecretCase("secret as a target's name", put("targets." + SECRET, {"kind": "local", "port": 8103})),
    SecretCase("secret in an adapter's configuration", adapter_config(base_model_name_or_path=SECRET)),
]

CASES = STRUCTURE + VALUES + PINS + SOURCES + ADAPTER_FILES + BASE_FILES
