"""The proxy's settings, by section. The engine that reads them is `ppd_shell.settings`."""
