"""Steps that are not replayed, each with its reason."""

SERVER_SIDE_APPLY = "server-side apply is out of scope: the product does not use it"

# file -> (first step, last step, reason)
LEFT_OUT = {
    "02_patches": [
        (70, 77, SERVER_SIDE_APPLY),
        (79, 84, SERVER_SIDE_APPLY),
        (86, 88, SERVER_SIDE_APPLY),
    ],
    "03_pods": [
        (40, 40, "the text of a failed DNS lookup for a kubelet: the simulated one answers"),
    ],
}
