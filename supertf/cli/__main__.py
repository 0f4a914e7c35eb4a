"""`python -m supertf.cli`, as in `torchrun -m supertf.cli train`."""

import sys

from supertf.cli.main import main

sys.exit(main())
