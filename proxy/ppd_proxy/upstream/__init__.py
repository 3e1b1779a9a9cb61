"""The engines' side: connections, legs on the wire, probes, scraping, and when to give up."""
