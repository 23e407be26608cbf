"""Draw a root, its activity and its plan as one self-contained page of HTML."""
