"""What `objgw.py` stands on: a folder for each subject.

Imports go downwards only; pyproject.toml has the order.
"""

import sys

# An older Python would fail somewhere in here with a stack trace. This file, gunicorn.conf.py,
# objgw.py and objgwctl.py import the package first, so they keep to what Python 3.8 can read.
NEEDED = (3, 13)

if sys.version_info < NEEDED:
    found = ".".join(map(str, sys.version_info[:2]))
    print(f"objgw: it needs Python 3.13 or newer, and this is {found}", file=sys.stderr)
    sys.exit(4)  # gunicorn's APP_LOAD_ERROR, as in gateway.settings
