"""Which tools can a conversation offer, and in which shapes do their results come back?"""
