"""`python -m expertmesh`: the same as the console script `expertmesh`."""

from expertmesh.cli import main

if __name__ == "__main__":
    main()
