"""The simulated engines' HTTP server, and how an answer is written in each dialect."""
