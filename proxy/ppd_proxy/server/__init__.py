"""The client's side: HTTP for generation requests, Quart for all other endpoints, limits and errors."""
