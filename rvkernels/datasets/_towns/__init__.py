"""How `rvkernels.datasets.towns` draws a scene.

city (styles) -> layout (water, streets, blocks and country, filled with things) -> plan (surfaces, crowns, objects) ->
paint (pixels) and cover (labels). Lengths are pixels of 0.5 m.
"""
