"""Runs the handler for tests: the folder that bundle.py writes, under one of Hugging Face's two servers."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from handlers.vertex import bundle
from tests.e2e.launcher_kit import ROOT, START_TIMEOUT_S, Server, Store, wait_until

ENV = ROOT / ".lorafleet" / "vertex-env"
PYTHON = ENV / "bin" / "python"
DOUBLE = Path(__file__).resolve().parent
NEWER, OLDER = "hf-serve", "toolkit"
PREDICT, HEALTH = "/vertex/predict", "/vertex/health"

needs_vertex = pytest.mark.skipif(
    not (ENV / "lorafleet.stamp").exists(), reason="make setup has not made .lorafleet/vertex-env yet"
)


class Handler(Server):
    """As Server, but the launch file goes to the handler by LORAFLEET_CONFIG. `kind` is NEWER or OLDER,
    `inside` the engine."""

    def __init__(
        self, folder: Path, kind: str, inside: str, store: Store | None = None, key: bool = False, **changes: Any
    ) -> None:
        super().__init__(folder, store, **changes)
        self.kind = kind
        if not key:
            self.document["apiKeySha256"] = []  # on Vertex AI, Google checks who calls
        self.model_dir = folder / "model"
        bundle.write(self.model_dir)
        self.environment.update(
            LORAFLEET_ENGINE=inside, AIP_MODE="PREDICTION", AIP_HTTP_PORT=str(self.port), AIP_PREDICT_ROUTE=PREDICT,
            AIP_HEALTH_ROUTE=HEALTH, HF_MODEL_DIR=str(self.model_dir), HF_TASK="custom", HF_TRUST_REMOTE_CODE="1",
            HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1", OMP_WAIT_POLICY="PASSIVE",
        )  # fmt: skip
        self.environment.pop("PYTHONPATH", None)

    def start(self, *_program: str) -> None:
        self.environment["LORAFLEET_CONFIG"] = json.dumps(self.document)
        self.state_file.unlink(missing_ok=True)
        if self.kind == NEWER:
            command = [str(ENV / "bin" / "hf-serve"), "--host", "127.0.0.1", "--port", str(self.port)]
        else:
            self.environment["PYTHONPATH"] = str(DOUBLE)
            command = [
                str(PYTHON), "-m", "uvicorn", "webservice_starlette:app", "--host", "127.0.0.1", "--port",
                str(self.port),
            ]  # fmt: skip
        with self.log_file.open("wb") as log:
            # a session of its own: vLLM's core is a child of the server, and goes with it
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def whole_log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self) -> None:
        def told() -> bool:
            assert self.process is not None and self.process.poll() is None, self.log()
            return self.state().get("phase") in ("ready", "failed")

        wait_until(told, START_TIMEOUT_S, self.log)
        assert self.state()["phase"] == "ready", self.log()

    def close(self) -> None:
        super().close()
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
