"""The simulated model: what it reads in a body, its tokens and what it answers. Equal input, equal answer."""
