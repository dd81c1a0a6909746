"""What every member of a mesh does: hold pieces, keep its lease, follow the topology."""
