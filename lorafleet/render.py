"""A plan as text for people: what is served, from where, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorafleet.disk import size_text
from lorafleet.errors import listed
from lorafleet.origin import shown_path
from lorafleet.sources import Source

if TYPE_CHECKING:
    from lorafleet.plan import Plan, PlannedAdapter, PlannedCanary, PlannedRouter, PlannedTarget


def render(plan: Plan) -> str:
    """Several short blocks, each with a heading. Paths inside the project are shown from its root."""
    base = plan.base
    blocks = [
        f"Fleet {plan.environment}: {base.name} with {listed((a.name for a in plan.adapters), 'and')}, "
        + (f"at {plan.router.endpoint}" if plan.router.runs == "here" else "behind a router elsewhere"),
        f"Store\n  {_source(plan.store, plan) if plan.store.startswith('file:') else plan.store}",
        "Base model\n"
        + _table(
            [
                ("name", base.name),
                ("source", _source(base.source, plan)),
                ("pinned by", base.revision or base.digest or ""),
                ("architecture", base.architecture),
                ("license", base.license),
                ("size", _size(base.size_bytes)),
            ]
        ),
        "Adapters\n"
        + _table(
            [("name", "rank", "size", "served as", "source")]
            + [
                (name, str(version.rank or "?"), _size(version.size_bytes), version.served_name, source)
                for a in plan.adapters
                for name, version, source in _versions(a, plan)
            ]
        ),
        "\n".join(["Targets", *(_target(target) for target in plan.targets)]),
        "Router\n"
        + _table(
            [
                *_router_place(plan.router),
                ("models", ", ".join(plan.router.models)),
                ("limits", _limits(plan)),
            ]
        ),
    ]
    if plan.image:
        blocks.append(f"Image\n  {plan.image}")
    return "\n\n".join(blocks) + "\n"


def _router_place(router: PlannedRouter) -> list[tuple[str, str]]:
    if router.runs == "elsewhere":
        return [("runs", "elsewhere, with the stack's outputs routerFile and targetKeys"), ("port", str(router.port))]
    return [("endpoint", router.endpoint), ("metrics", f"http://{router.host}:{router.metrics_port}/metrics")]


def _versions(adapter: PlannedAdapter, plan: Plan) -> list[tuple[str, PlannedAdapter | PlannedCanary, str]]:
    """An adapter and, below it, its canary."""
    rows: list[tuple[str, PlannedAdapter | PlannedCanary, str]] = [
        (adapter.name, adapter, "store" if adapter.stored else _source(adapter.source, plan))
    ]
    if adapter.canary:
        rows.append((f"  canary {adapter.canary.weight} %", adapter.canary, "store"))
    return rows


def _target(target: PlannedTarget) -> str:
    engine = target.engine
    ports = "".join(f", {key} {port}" for key, port in target.spec.ports().items())
    return "\n".join(
        [
            f"  {target.name} ({target.kind}{ports})",
            f"    serves   {', '.join(target.models)}",
            f"    engine   device {engine.device}, dtype {engine.dtype}, up to {engine.max_model_len} tokens "
            f"a request, KV cache {engine.kv_cache_mib} MiB",
            f"    adapters {target.max_loras} slots for {len(target.models) - 1} adapters, rank up to "
            f"{engine.max_lora_rank}",
            f"    load     {target.spec.max_in_flight} requests at once, {target.spec.max_queue} may wait",
            f"    disk     {_size(target.disk_bytes)}",
        ]
    )


def _limits(plan: Plan) -> str:
    limits = plan.router.limits
    return (
        f"{limits.max_body_kib} KiB a request, {limits.max_tokens} tokens an answer, "
        f"{limits.queue_timeout_s} s in the queue, {limits.response_timeout_s} s without a word from a target"
    )


def _source(source: str, plan: Plan) -> str:
    parsed = Source.parse(source)
    return f"file://{shown_path(parsed.folder(plan.root), plan.root)}" if parsed.scheme == "file" else source


def _size(size_bytes: int | None) -> str:
    return "unknown until it is fetched" if size_bytes is None else size_text(size_bytes)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(f"  {line.rstrip()}" for line in lines)
