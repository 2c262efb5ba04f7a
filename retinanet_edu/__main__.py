"""`python -m retinanet_edu` is the `retinanet-edu` command."""

import sys

from retinanet_edu.cli import main

sys.exit(main())
