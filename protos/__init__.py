"""The wire contract: .proto files and their generated stubs (never edited by hand)."""
