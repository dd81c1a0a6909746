"""The web for an agent: addresses are checked, sizes and times bounded, text is only text."""
