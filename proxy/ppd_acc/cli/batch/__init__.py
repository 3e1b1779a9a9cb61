"""Commands about datasets and whole runs."""
