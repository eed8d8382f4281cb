"""Makes the demo model in `demo/`: `python -m tools.demo.train --out demo`."""
