"""The claims, one a module, in the order of the book."""

from retinanet_edu.experiments.claims import (
    anchors,
    box_losses,
    connections,
    focusing,
    imbalance,
    normaliser,
    postprocessing,
    prior,
    pyramid,
    scaling,
    sharing,
    thresholds,
)

CLAIMS = {
    module.CLAIM.name: module.CLAIM
    for module in (
        pyramid,
        connections,
        sharing,
        imbalance,
        focusing,
        prior,
        anchors,
        thresholds,
        box_losses,
        postprocessing,
        normaliser,
        scaling,
    )
}
