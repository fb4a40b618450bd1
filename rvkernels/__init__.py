"""Deep learning on aerial and satellite imagery, compared across frameworks."""

__version__ = "0.1.0"
