"""Starts the engine's process, forwards its output, and ends it with everything that it started."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable

from handlers.serving import flags
from handlers.serving.engine import PARENT_PID_VARIABLE
from handlers.serving.errors import ServingError
from handlers.serving.routes import ROUTES_VARIABLE

ERROR_LINE = re.compile(r"(?:^|[\s.])([A-Za-z]*(?:Error|Exception)): (.+)")
# vLLM's own summary of any death of its core: says nothing, so a line before it is better
WRAPPER = "Engine core initialization failed"


class Engine:
    """One vLLM server as a child process. `on_end` is called (from a thread) when its output ends."""

    def __init__(self, command: flags.EngineCommand, routes_file: str, on_end: Callable[[], None]) -> None:
        environment = flags.inherited(os.environ) | command.environment
        environment[ROUTES_VARIABLE] = routes_file
        environment[PARENT_PID_VARIABLE] = str(os.getpid())
        self.on_end = on_end
        self.last_lines: deque[str] = deque(maxlen=400)
        # -P: the current folder stays out of the module path. A process group of its own holds it and
        # all that it starts. Must be called from the main thread: the kernel ties the child to the calling thread.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "handlers.serving.engine", *command.arguments],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self.pump = threading.Thread(target=self._forward, name="engine-output", daemon=True)
        self.pump.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_code(self) -> int | None:
        return self.process.poll()

    def check_alive(self) -> None:
        """Raises ServingError with vLLM's reason when the engine has ended."""
        code = self.exit_code()
        if code is not None:
            self.pump.join(timeout=2)
            raise self.death(code)

    def death(self, code: int) -> ServingError:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            step = "if nobody ended it: look for the kernel's out-of-memory message (dmesg); else start it again"
        else:
            step = "see the lines of vLLM in the server's log; correct the engine settings, then start it again"
        reason = self.reason()
        return ServingError(f"vLLM ended ({how})" + (f": {reason}" if reason else ""), step)

    def core_death(self) -> ServingError:
        """For an API server that is left over when vLLM's core has ended."""
        reason = self.reason()
        return ServingError(
            "vLLM ended (its API server is left, and takes no requests)" + (f": {reason}" if reason else ""),
            "see the lines of vLLM in the server's log; then start it again",
        )

    def reason(self) -> str | None:
        """The last line of vLLM's output that names an error other than its own wrapper."""
        for line in reversed(self.last_lines):
            found = ERROR_LINE.search(line)
            if found and WRAPPER not in line:
                return f"{found[1]}: {found[2]}"[:500]
        return None

    def stop(self, patience_s: float) -> None:
        """SIGTERM, then after `patience_s` seconds SIGKILL, to the whole group. Returns when the group is empty."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=patience_s)
        # The group can hold processes after its leader has gone.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _forward(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            self.last_lines.append(line)
            with contextlib.suppress(OSError, ValueError):  # our own output may be closed; the engine must go on
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
        self.on_end()
