"""Datasets, reports and snapshots, ours and those of other tools, and a running proxy's samples as a report."""
