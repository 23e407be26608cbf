"""`python -m examples.training` runs the demo."""

import os
import sys

# As on Lambda: the handlers' modules stand at the top.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from demo import main

sys.exit(main())
