"""Systems from outside, each in an environment and a process of its own: XTTS v2 and CosyVoice.

Their packages pin other versions than this one does, so nothing of them is installed or imported here. `environment`
finds what the user installed, `process` runs `worker` in it, `system` makes rows of a table of what it says.
"""
