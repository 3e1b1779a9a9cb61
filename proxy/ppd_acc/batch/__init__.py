"""One run over a dataset: its journal, its gates and when it may stop, and what it reports."""
