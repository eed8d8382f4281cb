"""Development only: set-up, the Pulumi engine from its Go modules, the demo's training, benchmarks."""
