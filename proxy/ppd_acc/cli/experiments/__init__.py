"""Commands that change what is asked, to find out what an engine does."""
