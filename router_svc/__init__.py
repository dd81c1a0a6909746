"""The router: who is a member, which pool holds which experts. Never imports torch."""
