"""The worker of RunPod's queue endpoints: takes jobs from RunPod and asks the server beside it (README.md).

`__main__` and `supervisor` run in the server's environment with the standard library alone; `worker` and what it
imports run in an environment of their own, with RunPod's SDK and the aiohttp that it brings.
"""
