"""An environment of a team (dev, staging, prod): all that its stack file declares, behind one router.

What is declared under `serving:fleet.targets` is made by the platform that its `kind` names; of a platform that no
target names, nothing is made or even loaded.
"""

from providers import artifacts, stack

fleet = stack.fleet()

manifest = artifacts.manifest("manifest", fleet)
targets = stack.targets(fleet, manifest)
router = stack.router("router", fleet, targets)

stack.export(fleet, targets=targets, router=router)
