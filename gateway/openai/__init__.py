"""OpenAI's dialect: its endpoints read, checked, rendered."""
