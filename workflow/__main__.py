"""Where `kelpie` begins: a local cloud's server is on its way before the command line is even imported.

Its imports take longer than all that the command does meanwhile, so that what comes before them is waited for.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    server = None
    if sys.argv[1:3] == ["local", "up"] and "--help" not in sys.argv:
        from workflow.local import cloud

        server = cloud.begin(cloud.default_home())
    from workflow import cli

    cli.main(server)


if __name__ == "__main__":
    main()
