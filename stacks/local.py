"""The environment `local`: one vLLM server and the router on this machine, no account needed."""

from providers import artifacts, local, stack

fleet = stack.fleet()

manifest = artifacts.manifest("manifest", fleet)
server = local.Server("server", fleet, manifest)
router = local.Router("router", fleet, targets=[server])

stack.export(fleet, targets=[server], router=router)
