"""Who is a member of the mesh, and who may become one."""
