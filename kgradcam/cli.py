"""The `kgradcam` command."""


def main() -> None:
    """Runs the command line."""
