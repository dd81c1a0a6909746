"""Rows on the wire between attention services and pools."""
