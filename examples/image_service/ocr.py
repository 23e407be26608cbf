"""Text recognition with RapidOCR: knows nothing of Lambda, EFS or efsstate."""

import glob
import os


class Reader:
    """Three ONNX models from one folder: where text is, which way up it is, and what it says."""

    loads = reads = (
        0  # in this process: how often the models were loaded, and how many images were read
    )

    def __init__(self, folder):
        import numpy as np
        from rapidocr import RapidOCR

        def path(part):
            (found,) = glob.glob(os.path.join(glob.escape(folder), f"*_{part}_*.onnx"))
            return found

        self._engine = RapidOCR(
            params={
                "Global.log_level": "error",
                "Det.model_path": path("det"),
                "Cls.model_path": path("cls"),
                "Rec.model_path": path("rec"),
            }
        )
        blank = np.full((48, 96, 3), 255, np.uint8)
        self._engine(
            blank, use_det=False, use_cls=True, use_rec=True
        )  # the library loads each model at its first use:
        self._engine(blank, use_det=True, use_cls=True, use_rec=True)  # use all three now
        Reader.loads += 1

    def __call__(self, image):
        """The lines of text in an image file's bytes, top to bottom: (text, score from 0 to 1)."""
        Reader.reads += 1
        found = self._engine(image)
        return [
            (text, round(float(score), 4))
            for text, score in zip(found.txts or (), found.scores or (), strict=False)
        ]


def packaged_models():
    """The folder with the models that the package `rapidocr` carries."""
    import rapidocr

    return os.path.join(os.path.dirname(rapidocr.__file__), "models")
