"""An index of a folder's texts, by which an agent finds passages."""
