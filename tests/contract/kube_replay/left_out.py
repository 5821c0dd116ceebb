"""Steps that are not replayed, each with its reason."""

SERVER_SIDE_APPLY = "server-side apply is out of scope: the product does not use it"

DEPLOYMENTS = "Deployments are out of scope: the fleet's pods are of ReplicaSets"

UNSERVED = "the discovery document of a group that is out of scope"

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
    "06_workloads": [
        (0, 1, DEPLOYMENTS),
        (5, 9, DEPLOYMENTS),
        (11, 12, DEPLOYMENTS),
        (16, 16, "ControllerRevisions are out of scope: the fleet rolls nothing back"),
        (17, 17, "StatefulSets are out of scope: the fleet's pods are of ReplicaSets"),
        (18, 25, "Jobs are out of scope: the product's own pods are bare"),
        (26, 26, "StatefulSets are out of scope: the fleet's pods are of ReplicaSets"),
        (87, 87, "what a terminating Namespace reports of its content is out of scope"),
    ],
    "07_discovery_auth": [
        (8, 8, "Jobs and CronJobs are out of scope"),
        (16, 16, "the index of root paths lists every group of a full server"),
        (17, 19, "OpenAPI documents are out of scope: clients at work do not read them"),
        (24, 24, "lists the inner parts of the recorded server"),
        (42, 43, "RBAC objects are out of scope: roles come with the tokens"),
        (47, 47, "SelfSubjectRulesReview is out of scope: nobody at work asks it"),
        (53, 54, "objects of priority and fairness: a rule of `faults` plays them"),
    ],
    "08_clients": [
        (177, 177, UNSERVED),
        (182, 185, UNSERVED),
        (187, 191, UNSERVED),
        (193, 196, UNSERVED),
    ],
}
