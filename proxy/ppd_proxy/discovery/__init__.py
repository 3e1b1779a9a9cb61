"""Engines that announce themselves."""
