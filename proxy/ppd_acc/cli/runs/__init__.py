"""Commands that hold several reports against each other, or keep them."""
