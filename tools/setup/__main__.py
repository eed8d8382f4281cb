"""The door of the set-up. Even an old Python must parse this file, so that it can say what is wrong."""

import os
import shutil
import sys

OLDEST = (3, 11)
NEXT = (
    "Next: install one (Debian 12 and Ubuntu 24.04 have it as python3; on Ubuntu 22.04 type "
    "`sudo apt-get install python3.11 python3.11-venv`), then run this again"
)


def main():  # type: () -> int
    """Runs the set-up; with too old a Python passes it on to a newer one, or says what to install."""
    if sys.version_info < OLDEST:
        for minor in range(16, OLDEST[1] - 1, -1):
            newer = shutil.which("python3." + str(minor))
            if newer:
                os.execv(newer, [newer, "-m", "tools.setup", *sys.argv[1:]])
        found = sys.executable + " is Python " + sys.version.split()[0]
        sys.stderr.write("error: " + found + ", and 3.11 or newer is needed. " + NEXT + "\n")
        return 1
    from tools.setup.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
