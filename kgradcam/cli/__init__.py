"""The `kgradcam` command: one module a command; each parses options and calls the library.

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
130 interrupted. TensorFlow takes seconds to import, so a command imports it only when it runs.
"""

import sys


def main() -> None:
    """Runs the command line."""
    try:
        # Imported here, so that Ctrl-C during the import has its exit code and message too.
        from kgradcam.cli.commands import app
        from kgradcam.cli.startup import run

        run(app)
    except KeyboardInterrupt:
        print("kgradcam: interrupted.", file=sys.stderr)
        sys.exit(130)
