"""How do other programs' clients get configured for this mesh? Printed, written and taken out."""
