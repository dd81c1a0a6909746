"""Steps: who works in them, the layers, the tokens that come of them."""
