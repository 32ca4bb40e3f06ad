"""`python -m transformer_xl`: the command line."""

from __future__ import annotations

import sys

from transformer_xl.cli.main import main

sys.exit(main())
