"""FedMD: clients with models of different architectures teach each other what they say about public data.

Li, Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", arXiv 1910.03581, Algorithm 1.
Every client k has its own model f_k and private data D_k; all share public data D_0. No parameters travel.

    transfer    f_k is trained on D_0, then on D_k
    each round  the server draws d ⊂ D_0 and sends indices; client k answers f_k(x), x ∈ d, raw logits
                consensus  f̃(x) = Σ_k c_k f_k(x),  Σ_k c_k = 1                        (`consensus`)
                digest     f_k is trained on d towards f̃, by the mean absolute error    (`client`)
                revisit    f_k is trained on D_k for a few epochs

Differs from the authors' code: nothing is stopped by looking at test data, the numbers of epochs are fixed;
Adam starts anew in each phase, so that a client keeps one model and no moments; GroupNorm stands where they
have BatchNorm, whose running statistics a handful of private examples would spoil; the consensus may weight
each row by its certainty or each column by its variance, and logits may be clipped and noised. Not plain
averaging at any setting.
"""
