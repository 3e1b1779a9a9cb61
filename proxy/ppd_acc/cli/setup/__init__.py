"""Commands about ppd-acc itself."""
