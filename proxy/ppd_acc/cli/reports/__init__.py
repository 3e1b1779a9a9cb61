"""Commands that read one report."""
