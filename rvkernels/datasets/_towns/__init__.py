"""How `rvkernels.datasets.towns` draws a scene: city (style) -> layout (geometry) -> paint (pixels) and cover (labels)."""
