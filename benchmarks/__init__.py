"""How fast Kelpie is, beside what it is compared with and what the machine can do at most.

`python -m benchmarks` measures all, `python -m benchmarks NAME` one script; `python -m benchmarks.tables` writes the
newest results into the documents. Each script measures Kelpie and its baselines in one run, in turn.
"""
