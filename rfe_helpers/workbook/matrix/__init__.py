"""A matrix: runs of notebooks in many combinations, as `rfe run --matrix` makes them.

It has axes with values: `profile`, `architecture`, and parameters of the notebooks. Each
combination is a `rfe run` in a lab of its own (combination.py), which Dask starts as memory allows
(cluster.py). On disk, in the lab of the command:

    matrix/<time>/matrix.json    the plan, and how far each combination is (state.py); only the
                                 command writes it, always as a whole
    matrix/<time>/report.html    the report about all of them (report.py)
    matrix/<time>/<number>/      what the last run of a combination left: report.html,
                                 summary.json, junit.xml, executed notebooks with the logs of
                                 their kernels, and output.log
    matrix/latest                a link to the last <time>
    matrix/labs/<number>/        the lab of a combination; a new matrix removes those of the last
    matrix/labs/<number>.lock    held while somebody works in that lab
    matrix/lock                  held by the command, which writes a random word into it: a run
                                 of a combination ends itself once that is over
    matrix/dask/                 the scratch directory of Dask

A command with the plan of the last matrix continues that one, unless all its combinations have
passed: those that have passed stay, the others are run again, in new labs.
"""
