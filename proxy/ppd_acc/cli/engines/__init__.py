"""Commands about one engine: what it is, whether it is well, how fast it is."""
