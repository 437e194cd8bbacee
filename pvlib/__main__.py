"""`python -m pvlib` is `pvlib`."""

import sys

from pvlib.cli import main

sys.exit(main())
