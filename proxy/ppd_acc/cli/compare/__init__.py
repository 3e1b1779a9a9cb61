"""Commands that compare two engines' answers to one prompt."""
