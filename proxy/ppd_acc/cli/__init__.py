"""The command line: the parser, what every command has, and one module per command, by subject.

A command turns what was given into a frozen value and hands it to the rooms beside this one. To add one: a module in
the folder of its subject, listed in `registry`.
"""
