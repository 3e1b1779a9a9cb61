"""The simulated engines' prefix cache, and KV on its way between them."""
