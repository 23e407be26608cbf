"""`python -m examples.image_service` runs the demo."""

import os
import sys

sys.path.insert(
    0, os.path.dirname(os.path.abspath(__file__))
)  # as on Lambda: app, batch and ocr stand at the top

from demo import main

sys.exit(main())
