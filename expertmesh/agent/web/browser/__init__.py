"""Chromium without a screen, which reaches only what our proxy lets it reach."""
