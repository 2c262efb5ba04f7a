"""Data: VOC, the embedded dataset of shapes, transforms, and batches.

A dataset, ours or anybody's, has `classes`, a length, and gives `(image, target)` for an index:
a uint8 tensor (3, H, W) and a dict of `boxes` (M, 4), `labels` (M,) in 0…K−1 and, where there
are any, `difficult` (M,) and `image_id`.
"""
