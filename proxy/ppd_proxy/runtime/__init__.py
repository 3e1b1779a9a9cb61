"""The composition root: what is started, in which order, and how it all ends."""
