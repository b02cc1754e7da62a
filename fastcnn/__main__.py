"""`python -m fastcnn` is the command `fastcnn`."""

import sys

from .cli import main

sys.exit(main())
