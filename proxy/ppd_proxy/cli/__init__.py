"""The command line of `ppd-proxy`: serve, check, simulate."""
