"""The proxy's settings, by section. They are read by `ppd_shell.settings` and `ppd_shell.sources`."""
