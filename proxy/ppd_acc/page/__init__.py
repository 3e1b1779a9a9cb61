"""A report as one HTML page: sections, pictures, both answers side by side."""
