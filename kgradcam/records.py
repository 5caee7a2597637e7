"""Ground truth and detections: the two tables that boxes become, and their COCO JSON.

Boxes are `xyxy` in pixels everywhere inside kgradcam: `[xmin, ymin, xmax, ymax]`, counted from 0,
half-open, so that `xmax - xmin` is the width and a box around the whole image is
`[0, 0, width, height]`. VOC's own integers count from 1 and include the last pixel: subtract 1 from
`xmin` and `ymin` to get ours. COCO's `[x, y, width, height]` shares our origin.
"""
