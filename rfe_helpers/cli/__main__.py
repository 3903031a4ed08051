"""`python -m rfe_helpers.cli`: `rfe`, for programs that know their Python and no PATH."""

import sys

from rfe_helpers.cli.main import main

sys.exit(main())
