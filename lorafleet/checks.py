"""What must agree between the parts of a declaration. Looks at no file."""

from __future__ import annotations

from collections.abc import Iterable

from lorafleet import licence
from lorafleet.declaration import Declaration
from lorafleet.errors import listed, nearest, shown
from lorafleet.origin import Report
from lorafleet.sources import Source
from lorafleet.stackfile import FieldPath

# vLLM keeps one slot of GPU memory per adapter, and the router one table entry; far more than this is a
# mistake.
MAX_ADAPTERS = 64
MAX_TARGETS = 32
STORE = "the store"
_RESERVED_TARGETS = {"router": "the router's own folder and metrics carry that name"}


def check(declaration: Declaration, report: Report) -> None:
    """Note everything that does not fit together."""
    _check_counts(declaration, report)
    _check_names(declaration, report)
    _check_base_pin(declaration, report)
    _check_adapter_sources(declaration, report)
    _check_adapter_pins(declaration, report)
    _check_canaries(declaration, report)
    _check_ports(declaration, report)


def _check_counts(declaration: Declaration, report: Report) -> None:
    for key, count, most in (
        ("adapters", len(declaration.adapters), MAX_ADAPTERS),
        ("targets", len(declaration.targets), MAX_TARGETS),
    ):
        if not 1 <= count <= most:
            report.add(
                (key,),
                f"there are too many {key}" if count else f"there are no {key}, and a fleet needs at least one",
                found=str(count),
                allowed=f"1 to {most}",
                next_action=f"Declare one, as in stacks/Pulumi.local.yaml under `{key}`."
                if not count
                else "Take some away, or declare a second fleet.",
            )


def _check_names(declaration: Declaration, report: Report) -> None:
    base = declaration.base_model.name
    if base in declaration.adapters:
        report.add(
            ("adapters", base),
            "an adapter has the base model's name, so clients could not tell them apart",
            found=shown(base),
            allowed="a name that differs from baseModel.name",
            next_action="Give the adapter another name.",
        )
    for name in declaration.targets:
        if name in _RESERVED_TARGETS:
            report.add(
                ("targets", name),
                f"a target can't have this name: {_RESERVED_TARGETS[name]}",
                found=shown(name),
                allowed=f"any other name than {listed(_RESERVED_TARGETS)}",
                next_action="Give the target another name, such as server.",
            )


def _check_base_pin(declaration: Declaration, report: Report) -> None:
    source, pin = declaration.base_model.source, declaration.release.base_model
    path: FieldPath = ("release", "baseModel")
    if source.scheme == "hf":
        if pin.revision is None:
            report.add(
                path,
                "a model of the hub needs a revision",
                found="no revision",
                allowed="revision: the 40 hexadecimal digits of a commit",
                next_action='Copy the commit from the model\'s page ("Files and versions", "History").',
            )
        return
    if pin.revision is not None:
        report.value(
            (*path, "revision"),
            f"only hf:// has revisions; the base comes from {source.scheme}://",
            pin.revision,
            allowed="digest: sha256:... instead of it",
            next_action="Take `revision` away and pin `digest`.",
        )
    elif pin.digest is None:
        report.add(
            path,
            f"a model from {source.scheme}:// needs a digest",
            found="no digest",
            allowed="digest: sha256: and 64 lower-case hexadecimal digits",
            next_action=f"Write here what `lorafleet digest --kind model {_folder(source)}` prints.",
        )


def _check_adapter_sources(declaration: Declaration, report: Report) -> None:
    for name, adapter in declaration.adapters.items():
        path: FieldPath = ("adapters", name)
        scheme = adapter.source.scheme if adapter.source else STORE
        if scheme == "hf" and adapter.revision is None:
            report.add(
                path,
                "an adapter of the hub needs a revision",
                found="no revision",
                allowed="revision: the 40 hexadecimal digits of a commit",
                next_action='Copy the commit from the adapter\'s page ("Files and versions", "History").',
            )
        if scheme != "hf" and adapter.revision is not None:
            report.value(
                (*path, "revision"),
                f"only hf:// has revisions; this adapter comes from {scheme if scheme == STORE else scheme + '://'}",
                adapter.revision,
                allowed="no revision: the digest in `release.adapters` says which content is meant",
                next_action="Take `revision` away.",
            )
        if scheme not in ("file", STORE) and adapter.rank is None:
            report.add(
                path,
                "the adapter's rank can't be read from here, so it must be declared",
                found="no rank",
                allowed="rank: a whole number from 1 to 512",
                next_action="Write the `r` of its adapter_config.json as `rank`.",
            )


def _check_adapter_pins(declaration: Declaration, report: Report) -> None:
    pins = declaration.release.adapters
    for name in pins:
        if name not in declaration.adapters:
            near = nearest(name, declaration.adapters)
            report.add(
                ("release", "adapters", name),
                "the release pins an adapter that is not declared",
                found=shown(name),
                allowed=listed(declaration.adapters),
                next_action=f"Did you mean {near}?" if near else "Declare it under `adapters`, or take the pin away.",
            )
    for name, adapter in declaration.adapters.items():
        # A misspelt pin was named above; the adapter that it was meant for is not named a second time.
        if name not in pins and name not in {nearest(pin, declaration.adapters) for pin in pins}:
            report.add(
                ("release", "adapters"),
                f"the release does not pin the adapter {name}",
                found=f"pins for {listed(pins, 'and')}",
                allowed="a digest for every adapter that is declared",
                next_action=f"Add `{name}:` with what `lorafleet digest {_folder(adapter.source)}` prints."
                if adapter.source
                else f"Add `{name}:` with a digest that `lorafleet adapter list {name}` shows.",
            )


def _check_canaries(declaration: Declaration, report: Report) -> None:
    for name, canary in declaration.release.canaries.items():
        path: FieldPath = ("release", "canaries", name)
        adapter = declaration.adapters.get(name)
        if adapter is None:
            near = nearest(name, declaration.adapters)
            report.add(
                path,
                "the canary is for an adapter that is not declared",
                found=shown(name),
                allowed=listed(declaration.adapters),
                next_action=f"Did you mean {near}?" if near else "Take the canary away, or declare the adapter.",
            )
        elif adapter.source is not None:
            report.add(
                path,
                "a canary needs an adapter of the store, and this one has a source of its own",
                found=f"source: {adapter.source}",
                allowed="an adapter without `source`",
                next_action="Push both versions (`lorafleet adapter push`) and take `source` away.",
            )
        elif canary.digest == declaration.release.adapters.get(name):
            report.value(
                (*path, "digest"),
                "the canary is the version that is served anyway",
                canary.digest,
                allowed="another digest than the one in release.adapters",
                next_action="Take the canary away.",
            )


def check_licence(declaration: Declaration, texts: Iterable[str], report: Report) -> None:
    """Note a licence that asks to be accepted and is not. `texts`: what the model's own files say of it."""
    base = declaration.base_model
    asked = licence.needed(base.source.address, base.license, *base.trained_as, *texts)
    accepted, path = base.licence_accepted, ("baseModel",)
    if asked is None:
        return
    if accepted != asked.id:
        report.add(
            path if accepted is None else (*path, "licenceAccepted"),
            f"the licence of this base model must be accepted: {asked.title}",
            found="no licenceAccepted" if accepted is None else f"licenceAccepted: {shown(accepted)}",
            allowed=f"licenceAccepted: {asked.id}, and `purpose` with what the model is used for",
            next_action=f"Read {asked.url} and, if your use is covered, write these two keys. It allows {asked.terms}.",
        )
    elif base.purpose is None or base.purpose.startswith("<"):
        report.add(
            path,
            f"the licence {asked.id} is accepted without a purpose",
            found="no purpose" if base.purpose is None else shown(base.purpose),
            allowed="purpose: what the model is used for, in one line",
            next_action=f"Write the key `purpose`. The licence allows {asked.terms}.",
        )


def _check_ports(declaration: Declaration, report: Report) -> None:
    router = declaration.router
    taken: dict[int, str] = {router.port: "router.port"}
    claims: list[tuple[FieldPath, int]] = [(("router", "metricsPort"), router.metrics_port)]
    for name, target in declaration.targets.items():
        claims += [(("targets", name, key), port) for key, port in target.ports().items()]
    for path, port in claims:
        field = ".".join(str(part) for part in path)
        if port in taken:
            report.value(
                path,
                f"the port is taken by {taken[port]} already",
                port,
                allowed="a port of its own for everything on this machine",
                next_action="Choose another port.",
            )
        else:
            taken[port] = field


def _folder(source: Source) -> str:
    return source.address if source.scheme == "file" else "FOLDER"
