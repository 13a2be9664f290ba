"""`python -m vtzoo` is the command `vtzoo`."""

from vtzoo.cli import main

if __name__ == "__main__":
    main()
