"""`python -m kgradcam` is the command `kgradcam`."""

from kgradcam.cli import main

if __name__ == "__main__":
    main()
