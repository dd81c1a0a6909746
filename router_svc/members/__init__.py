"""Who is in the mesh, and may be."""
