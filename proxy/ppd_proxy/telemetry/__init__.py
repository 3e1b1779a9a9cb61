"""Metrics and logs: it renders what others know, and decides nothing."""
