"""A real fake-gcs-server whose buckets lie in a folder, so that it can be stopped and started again."""

import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

from tests.e2e.launcher_kit import wait_until
from tests.support.artifacts_kit import fake_gcs_program
from tests.support.ports import free_port


class Gcs:
    """Buckets are the folders in `root`."""

    def __init__(self, root: Path, bucket: str) -> None:
        self.root = root
        self.bucket = bucket
        (root / bucket).mkdir(parents=True, exist_ok=True)
        self.program = fake_gcs_program()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        flags = [
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            str(self.port),
            "-public-host",
            f"127.0.0.1:{self.port}",
        ]
        flags += ["-backend", "filesystem", "-filesystem-root", str(self.root)]
        self.process = subprocess.Popen(
            [str(self.program), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.answers, 60)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        try:
            with urllib.request.urlopen(self.url + "/storage/v1/b", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def put(self, path: str, content: bytes) -> None:
        name = urllib.parse.quote(path, safe="")
        request = urllib.request.Request(
            f"{self.url}/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={name}", data=content, method="POST"
        )
        urllib.request.urlopen(request, timeout=60).close()

    def get(self, path: str) -> dict[str, object] | None:
        """The JSON document there, None when there is none."""
        name = urllib.parse.quote(path, safe="")
        try:
            with urllib.request.urlopen(
                f"{self.url}/storage/v1/b/{self.bucket}/o/{name}?alt=media", timeout=60
            ) as answer:
                found: dict[str, object] = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            assert error.code == 404
            return None
