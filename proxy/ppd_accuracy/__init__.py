"""Numbers about answers: how far two engines differ, and whether that is noise. Pure, with numpy; usable in a notebook.

Knows no engine, request or file: arrays and plain values come in. Who asks and who keeps is `ppd_acc` and
`ppd_proxy.shadow`.
"""
