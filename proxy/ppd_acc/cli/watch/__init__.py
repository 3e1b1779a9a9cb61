"""The command that goes on for days."""
