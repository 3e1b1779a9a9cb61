"""The accuracy commands (`ppd-acc`): they ask engines, compare the answers, and say where a split deployment goes
wrong.

Numbers are `ppd_accuracy`'s. Only `cli` knows argparse; of the proxy it knows the HTTP interface alone.
"""
