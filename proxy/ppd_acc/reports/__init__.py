"""What can be read off reports: conditions, matches between two, entropies, trends, and the formats they are written
in.
"""
