"""A real plugin process, spoken to as the engine does."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from providers.kit import values

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "providers" / "pulumi-resource-lorafleet"
SEED = bytes(range(32))


class CallError(Exception):
    """The plugin refused a call; `kept` is what it wants the state to keep."""

    def __init__(self, message: str, kept: provider_pb2.ErrorResourceInitFailed | None) -> None:
        super().__init__(message)
        self.kept = kept


@dataclass
class Plugin:
    """Starts the plugin; `with` ends it. Wire values go in and come out decoded."""

    env: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Plugin:
        self.process = subprocess.Popen(
            [str(PLUGIN)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **self.env}
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self.process.terminate()
        self.process.communicate(timeout=10)

    def kill(self) -> None:
        """kill -9, as a crash."""
        self.process.kill()
        self.process.wait()

    def schema(self) -> str:
        return str(self.stub.GetSchema(provider_pb2.GetSchemaRequest()).schema)

    def check(
        self, urn: str, news: dict[str, Any], olds: dict[str, Any] | None = None, seed: bytes = SEED
    ) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        request = provider_pb2.CheckRequest(
            urn=urn, news=values.encode(news), olds=values.encode(olds or {}), randomSeed=seed
        )
        answer = self._call(self.stub.Check, request)
        return values.decode(answer.inputs), [(each.property, each.reason) for each in answer.failures]

    def diff(
        self, urn: str, resource_id: str, old_inputs: dict[str, Any], news: dict[str, Any], olds: dict[str, Any]
    ) -> provider_pb2.DiffResponse:
        request = provider_pb2.DiffRequest(
            urn=urn,
            id=resource_id,
            old_inputs=values.encode(old_inputs),
            news=values.encode(news),
            olds=values.encode(olds),
        )
        answer: provider_pb2.DiffResponse = self._call(self.stub.Diff, request)
        return answer

    def create(self, urn: str, inputs: dict[str, Any], *, preview: bool = False) -> tuple[str, dict[str, Any], bytes]:
        """(id, outputs, the raw bytes of the answer)"""
        request = provider_pb2.CreateRequest(urn=urn, properties=values.encode(inputs), preview=preview)
        answer = self._call(self.stub.Create, request)
        return answer.id, values.decode(answer.properties), answer.SerializeToString()

    def update(
        self,
        urn: str,
        resource_id: str,
        state: dict[str, Any],
        old_inputs: dict[str, Any],
        inputs: dict[str, Any],
        *,
        preview: bool = False,
    ) -> dict[str, Any]:
        request = provider_pb2.UpdateRequest(
            urn=urn,
            id=resource_id,
            olds=values.encode(state),
            old_inputs=values.encode(old_inputs),
            news=values.encode(inputs),
            preview=preview,
        )
        return values.decode(self._call(self.stub.Update, request).properties)

    def read(
        self, urn: str, resource_id: str, inputs: dict[str, Any] | None = None, state: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """(id, "" if it is gone; inputs; outputs)"""
        request = provider_pb2.ReadRequest(
            urn=urn, id=resource_id, inputs=values.encode(inputs or {}), properties=values.encode(state or {})
        )
        answer = self._call(self.stub.Read, request)
        return answer.id, values.decode(answer.inputs), values.decode(answer.properties)

    def delete(self, urn: str, resource_id: str, inputs: dict[str, Any], state: dict[str, Any]) -> None:
        request = provider_pb2.DeleteRequest(
            urn=urn, id=resource_id, old_inputs=values.encode(inputs), properties=values.encode(state)
        )
        self._call(self.stub.Delete, request)

    @staticmethod
    def _call(method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=120)
        except grpc.RpcError as error:
            raise CallError(str(error.details()), _kept(error)) from None


def _kept(error: Any) -> provider_pb2.ErrorResourceInitFailed | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                kept = provider_pb2.ErrorResourceInitFailed()
                if detail.Unpack(kept):
                    return kept
    return None
