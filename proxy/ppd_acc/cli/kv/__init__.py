"""Commands about KV dumps."""
