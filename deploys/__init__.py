"""One file per layer of the guide, each runnable alone; `cluster.py` is the contents page."""
